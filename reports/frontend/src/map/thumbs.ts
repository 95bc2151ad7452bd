// Thumbnails from sprite sheets, and the keys of points; both come in pieces, which are fetched when they are needed.

import { el } from "../dom";
import { picture } from "../place";
import { jsonOf } from "./files";
import type { Manifest } from "./manifest";

export interface About {
  key: string;
  label: string; // the class, "" where it has none
  split: string;
}

export class Thumbs {
  private readonly chunks = new Map<number, Promise<string[][]>>();

  constructor(private readonly manifest: Manifest) {}

  get any(): boolean {
    return Boolean(this.manifest.sprites);
  }

  async about(point: number): Promise<About> {
    const { per } = this.manifest.keys;
    const rows = await this.chunk(Math.floor(point / per));
    const [key = "", label = "", split = ""] = rows[point % per] ?? [];
    return { key, label, split };
  }

  private chunk(number: number): Promise<string[][]> {
    let rows = this.chunks.get(number);
    if (!rows) {
      rows = jsonOf(this.manifest.keys.file.replace("{chunk}", String(number))) as Promise<string[][]>;
      this.chunks.set(number, rows);
    }
    return rows;
  }

  // The picture of a point as a square of `side` CSS pixels; null where the report has none.
  picture(point: number, side: number): HTMLElement | null {
    const { sprites } = this.manifest;
    if (!sprites) return null;
    const tile = point % sprites.per;
    const sheet = sprites.file.replace("{sheet}", String(Math.floor(point / sprites.per)));
    const node = el("i", { class: "map-picture" });
    Object.assign(node.style, {
      width: `${side}px`,
      height: `${side}px`,
      backgroundImage: `url("${picture(sheet)}")`,
      backgroundSize: `${sprites.columns * side}px auto`,
      backgroundPosition: `-${(tile % sprites.columns) * side}px -${Math.floor(tile / sprites.columns) * side}px`,
    });
    return node;
  }

  // A button with the picture of a point, or its number; its key becomes its name as soon as it is known.
  button(point: number, side: number, act: (point: number) => void, mark = ""): HTMLButtonElement {
    const picture = this.picture(point, side) ?? el("span", {}, String(point));
    const node = el("button", {
      type: "button", class: `map-thumb${mark && ` ${mark}`}`, "data-point": point, "aria-label": `point ${point}`,
      click: () => act(point),
    }, picture);
    void this.about(point).then(({ key, label }) => {
      const name = label ? `${key} · ${label}` : key;
      node.title = name;
      node.setAttribute("aria-label", name);
    }, () => undefined);
    return node;
  }
}
