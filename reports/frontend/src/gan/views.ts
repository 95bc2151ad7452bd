// The picture of a seed before and after edits, and how the two differ.

import { byId } from "../dom";
import { contextOf, type Failed, Line, pixelsOf, shareText } from "./asking";
import type { RecipeEdit } from "./edits";

export interface Asked {
  seed: number;
  edits: RecipeEdit[];
}

// POST generate
export interface Made {
  seed: number;
  picture: string;
  seconds: number;
}

type Side = "before" | "after";

export interface Watcher {
  seed: () => number;
  wanted: () => RecipeEdit[];
  shown: () => void; // a picture of the seed has come
  settled: () => void; // the edited picture stands, and no other is waited for
  idle: () => void; // nothing is asked for
  trouble: Failed;
}

const BRIGHTEST = 128; // the difference, of 255, that is drawn in the last colour
// Dark blue to yellow, ever lighter: read alike by all eyes, and in grey.
const STOPS: [number, number, number][] = [[0, 32, 76], [87, 93, 109], [165, 156, 116], [255, 234, 70]];

export class Views {
  private readonly pictures: Record<Side, string | null> = { before: null, after: null };
  private readonly befores: Line<Asked, Made>;
  private readonly afters: Line<Asked, Made>;
  private readonly afterImage = byId<HTMLImageElement>("after");
  private readonly took = byId("took");

  constructor(private readonly watcher: Watcher) {
    const fail: Failed = (error) => {
      this.afterImage.classList.remove("waiting");
      watcher.trouble(error);
    };
    this.befores = new Line("generate", (made, asked) => this.take("before", made, asked), fail, watcher.idle);
    this.afters = new Line("generate", (made, asked) => this.take("after", made, asked), fail, () => {
      this.afterImage.classList.remove("waiting");
      watcher.settled();
      watcher.idle();
    });
  }

  get busy(): boolean {
    return this.befores.busy || this.afters.busy;
  }

  get before(): string | null {
    return this.pictures.before;
  }

  get after(): string | null {
    return this.pictures.after;
  }

  // Another seed: its picture without edits is asked for.
  begin(): void {
    this.pictures.before = this.pictures.after = null;
    this.befores.ask({ seed: this.watcher.seed(), edits: [] });
  }

  // The picture as the edits stand.
  ask(): void {
    const seed = this.watcher.seed(), edits = this.watcher.wanted();
    if (edits.length) {
      this.afterImage.classList.add("waiting");
      this.afters.ask({ seed, edits });
    } else if (this.pictures.before && !this.afters.busy) {
      this.same(this.pictures.before);
      void this.compare();
      this.watcher.settled();
    } else {
      this.afters.ask({ seed, edits });
    }
  }

  private async take(which: Side, made: Made, asked: Asked): Promise<void> {
    if (made.seed !== this.watcher.seed()) return;
    this.watcher.trouble(null);
    this.watcher.shown();
    this.pictures[which] = made.picture;
    byId<HTMLImageElement>(which).src = made.picture;
    if (which === "before" && !this.watcher.wanted().length) this.same(made.picture);
    if (which === "after") this.took.textContent = asked.edits.length ? `· answered in ${Math.max(1, Math.round(1000 * made.seconds))} ms` : "";
    await this.compare();
  }

  private same(picture: string): void {
    this.pictures.after = picture;
    this.afterImage.src = picture;
    this.took.textContent = "";
  }

  private async compare(): Promise<void> {
    const { before, after } = this.pictures;
    if (!before || !after) return;
    try {
      const [one, other] = await Promise.all([pixelsOf(before), pixelsOf(after)]);
      if (before === this.pictures.before && after === this.pictures.after) showDifference(one, other);
    } catch (error) {
      this.watcher.trouble(error);
    }
  }
}

function showDifference(one: ImageData, other: ImageData): void {
  const canvas = byId<HTMLCanvasElement>("changed");
  canvas.width = one.width;
  canvas.height = one.height;
  const draw = contextOf(canvas), drawn = draw.createImageData(one.width, one.height);
  let count = 0, most = 0;
  const away = (at: number): number => Math.abs((one.data[at] ?? 0) - (other.data[at] ?? 0));
  for (let at = 0; at < one.data.length; at += 4) {
    const far = Math.max(away(at), away(at + 1), away(at + 2));
    if (far > 0) count += 1;
    most = Math.max(most, far);
    drawn.data.set([...shade(far / BRIGHTEST), 255], at);
  }
  draw.putImageData(drawn, 0, 0);
  const words = `difference: ${shareText((count * 4) / one.data.length)} of the pixels, at most ${most} of 255 (yellow: ${BRIGHTEST} or more)`;
  byId("change-words").textContent = most ? words : "no difference";
  byId("difference").dataset.most = String(most);
}

function shade(share: number): [number, number, number] {
  const at = Math.min(share, 1) * (STOPS.length - 1), from = Math.min(Math.floor(at), STOPS.length - 2);
  const low = STOPS[from] ?? [0, 0, 0], high = STOPS[from + 1] ?? low, part = at - from;
  return [low[0] + part * (high[0] - low[0]), low[1] + part * (high[1] - low[1]), low[2] + part * (high[2] - low[2])];
}
