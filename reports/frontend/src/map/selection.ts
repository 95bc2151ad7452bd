// The panel of a selection: how many images, which of them, what is more frequent in it than on the whole map.

import type { MapData } from "./data";
import { byId, button, el, images, percent, thousands } from "../dom";
import type { Concept } from "./manifest";
import { type Excess, bitsOf, classCounts, common, excesses, ones } from "./statistics";
import type { Thumbs } from "./thumbs";

const PICTURES = 36;
const SIDE = 48;
const ROWS = 10;
const AT_ONCE = 8;

export interface Doings {
  pick: (point: number) => void;
  zoomTo: () => void;
  clear: () => void;
  colourByConcept: (concept: number) => void;
  chooseClass: (number: number) => void;
}

export class SelectionPanel {
  private readonly room = byId("map-selection");
  private shown = 0;

  constructor(private readonly data: MapData, private readonly thumbs: Thumbs, private readonly doings: Doings) {}

  hide(): void {
    this.shown += 1;
    this.room.hidden = true;
    this.room.replaceChildren();
  }

  // Show `points`, ascending; `title`: what they are. Figures that need files appear as these arrive.
  show(points: Uint32Array, title: string): void {
    this.shown += 1;
    const turn = this.shown;
    const classes = el("div", { class: "map-excess" });
    const concepts = el("div", { class: "map-excess" });
    const told = el("p", { class: "note", role: "status" });
    this.room.hidden = false;
    this.room.replaceChildren(
      el("h2", {}, title),
      el("p", { class: "sub" }, `${images(points.length)} · ${percent(points.length / this.data.n)} of the map`),
      el("p", { class: "map-acts" },
        button("zoom to it", this.doings.zoomTo),
        button("copy keys", () => void this.copy(points, told)),
        button("let go", this.doings.clear)),
      told, this.pictures(points), classes, concepts,
    );
    if (points.length === 0) return;
    const current = (): boolean => turn === this.shown;
    void this.compareClasses(points, classes, current);
    void this.compareConcepts(points, concepts, current);
  }

  private pictures(points: Uint32Array): HTMLElement {
    const count = Math.min(PICTURES, points.length);
    const shown = Array.from({ length: count }, (_, at) => points[Math.floor((at * points.length) / count)] as number);
    const row = el("div", { class: "map-thumbs" });
    if (this.thumbs.any) row.append(...shown.map((point) => this.thumbs.button(point, SIDE, this.doings.pick)));
    return row;
  }

  private async compareClasses(points: Uint32Array, room: HTMLElement, current: () => boolean): Promise<void> {
    const { classes: names } = this.data.manifest;
    const classes = await this.data.classes();
    if (!classes || !current()) return;
    const all = classCounts(classes, names.length);
    const counted = [...classCounts(classes, names.length, points)].map((count, id) => ({ id, count, all: all[id] as number }));
    const found = excesses(counted, points.length, this.data.n, ROWS);
    room.replaceChildren(...table("Classes", found, (id) => button(names[id] ?? "", () => this.doings.chooseClass(id))));
  }

  private async compareConcepts(points: Uint32Array, room: HTMLElement, current: () => boolean): Promise<void> {
    const compared = this.data.compared();
    const selected = bitsOf(points, this.data.n);
    const counted: { id: number; count: number; all: number }[] = [];
    for (let at = 0; at < compared.length; at += AT_ONCE) {
      const some = compared.slice(at, at + AT_ONCE);
      const found = await Promise.all(some.map((concept) => this.data.concept(concept)));
      if (!current()) return;
      found.forEach((bits, place) => {
        counted.push({ id: at + place, count: common(bits, selected), all: ones(bits) });
      });
    }
    const found = excesses(counted, points.length, this.data.n, ROWS);
    const left = this.data.manifest.concepts.length - compared.length;
    room.replaceChildren(
      ...table("Concepts", found, (at) => {
        const concept = compared[at] as Concept;
        return el("span", {}, button(concept.name, () => this.doings.colourByConcept(concept.id)), " ", el("small", {}, concept.category));
      }),
      left > 0 ? el("p", { class: "note" }, `The ${thousands(compared.length)} most frequent concepts were compared.`) : "",
    );
  }

  private async copy(points: Uint32Array, told: HTMLElement): Promise<void> {
    told.textContent = "Collecting keys …";
    try {
      const keys: string[] = [];
      for (const point of points) keys.push((await this.thumbs.about(point)).key);
      const text = keys.join("\n");
      try {
        await navigator.clipboard.writeText(text);
        told.textContent = `${thousands(keys.length)} keys copied, one a line.`;
      } catch {
        const box = el("textarea", { readonly: true, rows: 6, "aria-label": "Keys, one a line" });
        box.value = text;
        told.replaceChildren("The browser does not let the page copy. Here they are: ", box);
        box.select();
      }
    } catch (error) {
      told.textContent = error instanceof Error ? error.message : String(error);
    }
  }
}

function table(title: string, found: readonly Excess[], name: (id: number) => Node): Node[] {
  if (found.length === 0) return [];
  const rows = found.map(({ id, share, overall, lift }) =>
    el("li", {},
      name(id),
      el("span", { class: "meter", role: "img", "aria-label": `${percent(share)} here, ${percent(overall)} of all`, title: `${percent(share)} here, ${percent(overall)} of all` },
        styled(el("i", { class: "bar" }), "width", share), styled(el("i", { class: "ceiling" }), "left", overall)),
      el("span", { class: "n" }, `${percent(share)} `, el("small", {}, `×${lift < 10 ? lift.toFixed(1) : Math.round(lift)}`))));
  return [el("h3", {}, `${title} more frequent here`), el("ol", { class: "map-bars" }, ...rows)];
}

function styled<T extends HTMLElement>(node: T, property: "width" | "left", share: number): T {
  node.style[property] = `${Math.min(100, 100 * share)}%`;
  return node;
}
