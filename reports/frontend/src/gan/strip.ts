// Thumbnails of seeds, asked for one by one while nothing else is.

import { byId, el } from "../dom";
import { ask } from "../pages/live/asking";
import type { Failed } from "./asking";
import type { Made } from "./views";

const SEEDS = 12;
const SIDE = 96;
const KEPT = 600;

export class Strip {
  private readonly list = byId("strip");
  private readonly thumbnails = new Map<number, string>();
  private first = 0;
  private seed = 0;
  private sketching = false;

  // last: the largest seed; busy: whether something else is asked for.
  constructor(
    private readonly last: number,
    private readonly go: (seed: number) => void,
    private readonly busy: () => boolean,
    private readonly trouble: Failed,
  ) {
    byId("earlier").addEventListener("click", () => this.move(this.first - SEEDS));
    byId("later").addEventListener("click", () => this.move(this.first + SEEDS));
  }

  get isEmpty(): boolean {
    return !this.thumbnails.size;
  }

  // Show where the seed is.
  show(seed: number): void {
    this.seed = seed;
    this.move(seed < this.first || seed >= this.first + SEEDS ? seed : this.first);
  }

  // Ask for the next thumbnail that is missing.
  sketch(): void {
    if (this.sketching || this.busy()) return;
    const seed = this.seeds().find((number) => !this.thumbnails.has(number));
    if (seed === undefined) return;
    this.sketching = true;
    ask<Made>("generate", { seed, edits: [], side: SIDE }).then(({ picture }) => {
      if (this.thumbnails.size > KEPT) this.thumbnails.clear();
      this.thumbnails.set(seed, picture);
      for (const image of this.list.querySelectorAll<HTMLImageElement>(`img[data-seed="${seed}"]`)) image.src = picture;
      this.sketching = false;
      this.sketch();
    }).catch((error: unknown) => {
      this.sketching = false;
      this.trouble(error);
    });
  }

  private seeds(): number[] {
    return Array.from({ length: Math.min(SEEDS, this.last + 1) }, (_, at) => this.first + at);
  }

  private move(first: number): void {
    this.first = Math.max(0, Math.min(first, this.last - SEEDS + 1));
    this.list.replaceChildren(...this.seeds().map((number) => {
      const image = el("img", { alt: "", "data-seed": number, src: this.thumbnails.get(number) ?? null });
      const pressed = String(number === this.seed);
      return el("li", {}, el("button", { type: "button", "aria-pressed": pressed, "aria-label": `seed ${number}`, click: () => this.go(number) }, image, String(number)));
    }));
    this.sketch();
  }
}
