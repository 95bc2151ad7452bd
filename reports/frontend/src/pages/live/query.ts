// Queries of the run's tables, in the words of `microtome query`.

import { byId, el } from "../../dom";
import { href } from "../../place";
import { unitAddress } from "../cards";
import { type Cell, copyButtons } from "../copying";
import type { Listing } from "../data";
import { counted, iou, short, thousands } from "../format";
import { ask } from "./asking";
import type { Hello } from "./hello";
import { Room } from "./room";
import { keep, read } from "./state";

type Row = Record<string, Cell | boolean>;

interface Found {
  kind: "units" | "concepts" | "summary";
  columns: string[];
  total: number;
  units?: Row[];
  concepts?: Row[];
  summary?: Row[];
}

const SHOWN: Record<Found["kind"], string[]> = {
  units: ["layer", "unit", "concept", "label", "category", "iou", "ceiling", "iou_train", "iou_val", "iou_half", "information", "state", "threshold"],
  concepts: ["concept", "category", "iou", "ceiling", "iou_train", "iou_val", "iou_half", "intersection", "unit_pixels", "concept_pixels"],
  summary: ["layer", "category", "units", "detectors", "unique_detectors", "unique_by_category"],
};
const NAMES: Record<string, string> = {
  iou: "IoU", iou_train: "train IoU", iou_val: "val IoU", iou_half: "IoU, choosing half", unit_pixels: "unit’s pixels", concept_pixels: "concept’s pixels",
  unique_detectors: "unique detectors", unique_by_category: "unique by category",
};
const WHOLE = new Set(["unit", "intersection", "unit_pixels", "concept_pixels", "units", "detectors", "unique_detectors", "unique_by_category"]);
const WORDS = new Set(["layer", "concept", "label", "category", "state"]);

export class QueryRoom {
  private readonly room = new Room("query");
  private readonly box = byId<HTMLInputElement>("expression");

  constructor(private readonly listing: Listing, private readonly can: Hello) {
    byId("query-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask(can.limits.rows[0]);
    });
    byId("examples").replaceChildren(...examples(listing).map((text) => el("button", {
      type: "button", class: "plain", click: () => {
        this.box.value = text;
        this.ask(can.limits.rows[0]);
      },
    }, text || "all layers")));
  }

  // As the address says.
  show(): void {
    const asked = read().get("query");
    if (asked === undefined || (asked === this.box.value && this.room.answer.childElementCount)) return;
    this.box.value = asked;
    this.ask(this.can.limits.rows[0]);
  }

  private ask(count: number): void {
    const expression = this.box.value.trim();
    keep({ query: expression });
    void this.room.ask("Asking …", (signal) => ask<Found>("query", { expression, count }, signal), (found) => this.draw(found, expression));
  }

  private draw(found: Found, expression: string): void {
    const rows = found[found.kind] ?? [], [, most] = this.can.limits.rows;
    if (!rows.length) {
      this.room.answer.replaceChildren(el("p", { class: "nothing" }, "No unit meets all of that. Lower the IoU, take a term away, or ask with an empty box what there is."));
      return;
    }
    const more = found.total > rows.length && rows.length < most ? el("button", { type: "button", class: "plain", click: () => this.ask(most) }, found.total > most ? `the first ${thousands(most)}` : "all of them") : null;
    const noun = found.kind === "units" ? "unit" : found.kind === "concepts" ? "concept" : "row";
    const said = rows.length < found.total ? `the first ${thousands(rows.length)} of ${counted(found.total, noun)} ` : counted(found.total, noun);
    const columns = SHOWN[found.kind].filter((name) => found.columns.includes(name));
    const copy = copyButtons(() => ({ name: "query", columns: found.columns, rows: rows.map((row) => found.columns.map((name) => plain(row[name]))) }));
    this.room.answer.replaceChildren(
      el("p", { class: "note" }, expression ? el("code", {}, expression) : "all layers", `: ${said}`, more, " ", copy),
      el("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "what was found" }, el(
        "table", { class: "numbers" },
        el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { class: WORDS.has(name) ? null : "n", scope: "col" }, NAMES[name] ?? name)))),
        el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map((name) => this.cell(name, row))))),
      )),
    );
  }

  private cell(name: string, row: Row): HTMLElement {
    const value = row[name], { layer, unit } = row;
    if (value === null || value === undefined) return el("td", { class: WORDS.has(name) ? "none" : "n none" }, "–");
    if (name === "unit" && typeof layer === "string" && typeof unit === "number") return el("td", { class: "n" }, el("a", { href: href(unitAddress(layer, unit)) }, String(unit)));
    const entry = name === "layer" ? this.listing.layers.find((one) => one.name === value) : undefined;
    if (entry) return el("td", {}, el("a", { href: href(entry.page) }, entry.name));
    if (name === "concept" || name === "label") return el("td", {}, el("a", { href: href(`concept.html#concept=${encodeURIComponent(String(value))}`) }, String(value)));
    if (typeof value !== "number") return el("td", {}, String(value));
    return el("td", { class: "n" }, WHOLE.has(name) ? thousands(value) : name === "threshold" ? short(value) : iou(value));
  }
}

function plain(value: Cell | boolean | undefined): Cell {
  return typeof value === "boolean" ? String(value) : value ?? null;
}

// As the expression has it: in quotes where it would be read otherwise.
export function quotedName(name: string): string {
  if (/^[\w.:/-]+$/.test(name)) return name;
  return name.includes('"') ? `'${name}'` : `"${name}"`;
}

// Questions that this run has answers to.
function examples(listing: Listing): string[] {
  const own = listing.layers.filter(({ baseline }) => !baseline), last = own.at(-1)?.name ?? "";
  const best = [...listing.concepts].sort((a, b) => b[4] - a[4])[0];
  const found = best ? [`concept=${quotedName(best[1])} iou>${listing.bar}`] : [];
  const category = best ? listing.categories[best[2]] : undefined;
  if (category) found.push(`category=${quotedName(category)} detector=yes layer=${quotedName(last)}`);
  return [...found, `${last}:0`, "state=dead", ""];
}
