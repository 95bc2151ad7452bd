// What the segmenter sees before and after edits: a table of concepts, and one of them outlined on both pictures.

import { byId, el } from "../dom";
import { type Failed, Leaving, pixelsOf, shareText } from "./asking";
import type { Region } from "./edits";
import type { Asked } from "./views";

const SETTLED = 150; // milliseconds without a change before the segmenter is asked

interface Seen {
  name: string;
  before: number;
  after: number;
}

// POST areas
interface Areas {
  concepts: Seen[];
  planes: number;
  maps: string[]; // before and after: pictures of id + 1, red + 256 green, planes below each other
}

interface Maps {
  names: string[];
  planes: number;
  pixels: ImageData[];
}

export class AreaTable {
  private readonly body = byId("seen");
  private readonly line: Leaving<Asked, Areas>;
  private maps: Maps | null = null;
  private outlined = "";

  // seed: the one that is shown; mark: outline these regions, one a picture.
  constructor(
    private readonly seed: () => number,
    private readonly mark: (regions: Region[] | null) => void,
    private readonly trouble: Failed,
  ) {
    this.line = new Leaving("areas", SETTLED, (found, asked) => this.show(found, asked), trouble);
  }

  ask(asked: Asked): void {
    this.line.ask(asked);
  }

  leave(): void {
    this.line.leave();
  }

  private show(found: Areas, asked: Asked): void {
    if (asked.seed !== this.seed()) return;
    this.maps = null;
    byId("areas").hidden = false;
    const rows = found.concepts.filter(({ before, after }) => before > 0 || after > 0);
    const change = ({ before, after }: Seen): number => Math.abs(after - before);
    rows.sort((one, other) => change(other) - change(one) || other.before - one.before);
    const most = Math.max(1e-9, ...rows.map(change));
    this.body.replaceChildren(...rows.map((one) => this.row(one, most)));
    Promise.all(found.maps.map(pixelsOf)).then((pixels) => {
      this.maps = { names: found.concepts.map(({ name }) => name), planes: found.planes, pixels };
      this.outline();
    }).catch(this.trouble);
  }

  private row({ name, before, after }: Seen, most: number): HTMLTableRowElement {
    const change = after - before, sign = change < 0 ? "−" : change > 0 ? "+" : "";
    const pick = (): void => {
      this.outlined = this.outlined === name ? "" : name;
      this.outline();
    };
    const bar = el("i", { class: change < 0 ? "less" : "more", style: `width:${((50 * Math.abs(change)) / most).toFixed(1)}%` });
    return el(
      "tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", "aria-pressed": String(name === this.outlined), click: pick }, name)),
      ...[shareText(before), shareText(after), sign + shareText(Math.abs(change))].map((text) => el("td", { class: "n" }, text)),
      el("td", {}, el("span", { class: "bar" }, change ? bar : null)),
    );
  }

  // Where the chosen concept is, on both pictures.
  private outline(): void {
    for (const pick of this.body.querySelectorAll("button")) pick.setAttribute("aria-pressed", String(pick.textContent === this.outlined));
    const { maps, outlined } = this;
    this.mark(maps && outlined ? maps.pixels.map((map) => regionOf(map, maps, outlined)) : null);
  }
}

// Where a map, all of its planes, has a concept.
function regionOf(map: ImageData, { names, planes }: Maps, concept: string): Region {
  const rows = map.height / planes, cells = new Uint8Array(rows * map.width);
  for (let at = 0; at < map.width * map.height; at += 1) {
    const id = (map.data[4 * at] ?? 0) + 256 * (map.data[4 * at + 1] ?? 0) - 1;
    if (id >= 0 && names[id] === concept) cells[at % cells.length] = 1;
  }
  return { rows, columns: map.width, cells };
}
