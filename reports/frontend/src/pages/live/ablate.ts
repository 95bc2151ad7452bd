// Units set to zero: which classes suffer, beside random sets of as many units.

import { byId, el } from "../../dom";
import { href } from "../../place";
import { unitAddress } from "../cards";
import { type Cell, copyButtons } from "../copying";
import type { Listing } from "../data";
import { counted, thousands } from "../format";
import { askTelling } from "./asking";
import type { Hello } from "./hello";
import { Room } from "./room";
import { keep, read } from "./state";

const NAMED = 2000; // concepts that the box suggests
const LINKED = 30; // units of the answer that are linked

interface Random {
  mean: number;
  low: number;
  high: number;
}

interface Row {
  class: string;
  index: number | null; // null: all images
  images: number;
  accuracy: number;
  accuracy_without: number;
  fall: number;
  random: Random | null;
}

interface Found {
  layer: string;
  units: number[];
  chosen_by: string;
  removal: string;
  truth: string;
  why: string;
  images: number;
  of: number;
  draws: number;
  drawn_from: string;
  rows: Row[];
  seconds: number;
}

type Asked = { layer: string; images: number; draws: number } & ({ units: number[] } | { concept: string; top: number });

// "3, 17, 40-44" as numbers. Fails with a sentence.
export function unitsOf(text: string, most: number): number[] {
  const found = new Set<number>();
  for (const part of text.split(/[\s,;]+/).filter(Boolean)) {
    const match = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part);
    const first = Number(match?.[1]), last = Number(match?.[2] ?? match?.[1]);
    if (!match || last < first) throw new Error(`“${part}” is no unit: give numbers and ranges, as in 3, 17, 40-44.`);
    if (last >= most) throw new Error(`The layer has units 0 to ${most - 1}, not ${last}.`);
    for (let unit = first; unit <= last; unit += 1) found.add(unit);
  }
  if (!found.size) throw new Error("Name the units: numbers and ranges, as in 3, 17, 40-44.");
  return [...found].sort((a, b) => a - b);
}

export class AblateRoom {
  private readonly room = new Room("ablate");
  private readonly layer = byId<HTMLSelectElement>("ablate-layer");
  private readonly units = byId<HTMLInputElement>("ablate-units");
  private readonly concept = byId<HTMLInputElement>("ablate-concept");
  private readonly top = byId<HTMLInputElement>("ablate-top");
  private readonly images = byId<HTMLInputElement>("ablate-images");
  private readonly draws = byId<HTMLInputElement>("ablate-draws");

  constructor(private readonly listing: Listing, private readonly can: Hello) {
    const { layers, why } = can.ablate;
    byId("ablate-form").hidden = Boolean(why);
    if (why) this.room.refuse(why);
    this.layer.replaceChildren(...layers.map(({ name, units }) => el("option", { value: name }, `${name} · ${thousands(units)} units`)));
    this.layer.value = layers.at(-1)?.name ?? "";
    for (const [box, [usual, most]] of [[this.images, can.limits.images], [this.draws, can.limits.draws]] as const) {
      box.value = String(usual);
      box.max = String(most);
    }
    byId("concept-names").replaceChildren(...listing.concepts.slice(0, NAMED).map(([, name]) => el("option", { value: name })));
    for (const box of byId("ablate-form").querySelectorAll<HTMLInputElement>("input[name=by]")) box.addEventListener("change", () => this.choose(box.value));
    byId("ablate-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
  }

  // As the address says: it fills the form in, and nothing is measured before the button is pressed.
  show(): void {
    const state = read(), layer = state.get("ablate"), units = state.get("units"), concept = state.get("of");
    if (!layer || !this.can.ablate.layers.some(({ name }) => name === layer)) return;
    this.layer.value = layer;
    if (concept) this.concept.value = concept;
    else if (units) this.units.value = units;
    this.choose(concept ? "concept" : "units");
    const top = state.get("top");
    if (top && /^\d+$/.test(top)) this.top.value = top;
    byId("ablate").scrollIntoView();
    byId("ablate-go").focus({ preventScroll: true });
  }

  private get byConcept(): boolean {
    return byId<HTMLInputElement>("by-concept").checked;
  }

  private choose(by: string): void {
    byId<HTMLInputElement>(`by-${by === "concept" ? "concept" : "units"}`).checked = true;
    byId("those-units").hidden = this.byConcept;
    byId("those-of").hidden = !this.byConcept;
  }

  private asked(): Asked {
    const layer = this.layer.value, common = { layer, images: this.images.valueAsNumber, draws: this.draws.valueAsNumber };
    if (!this.byConcept) return { ...common, units: unitsOf(this.units.value, this.can.ablate.layers.find(({ name }) => name === layer)?.units ?? 0) };
    const concept = this.concept.value.trim();
    if (!concept) throw new Error("Name a concept of this run.");
    return { ...common, concept, top: this.top.valueAsNumber };
  }

  private ask(): void {
    let asked: Asked;
    try {
      asked = this.asked();
    } catch (error) {
      this.room.fail(error instanceof Error ? error.message : String(error));
      return;
    }
    const own = "concept" in asked ? { of: asked.concept, top: String(asked.top), units: null } : { units: this.units.value.trim().replace(/[\s,;]+/g, ","), of: null, top: null };
    keep({ ablate: asked.layer, ...own });
    const begun = performance.now();
    const told = (done: number, of: number): void => {
      const seconds = (performance.now() - begun) / 1000, left = done ? Math.ceil((seconds * (of - done)) / done) : 0;
      this.room.tell(`${thousands(done)} of ${counted(of, "image")}${left > 1 ? `, about ${left} s left` : ""}`, done / of);
    };
    void this.room.ask("The model is being opened …", (signal) => askTelling<Found>("ablate", asked, told, signal), (found) => this.draw(found));
  }

  private draw(found: Found): void {
    const [whole, ...classes] = found.rows;
    if (!whole) return;
    classes.sort((one, other) => other.fall - one.fall || (one.index ?? 0) - (other.index ?? 0));
    const most = Math.max(0.01, ...found.rows.map(({ fall }) => Math.abs(fall)));
    const header = ["class", "images", "accuracy", "without", "fall, points", ...(found.draws ? ["random sets: mean", found.draws < 5 ? "their range" : "95% of them"] : []), ""];
    this.room.answer.replaceChildren(
      el("p", {}, el("b", {}, conclusion(whole, classes, found))),
      el("p", { class: "note" }, ...this.how(found), copyButtons(() => table(found))),
      el("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "what classes lose" }, el(
        "table", { class: "numbers" },
        el("thead", {}, el("tr", {}, ...header.map((name, place) => el("th", { scope: "col", class: place ? "n" : null }, name)))),
        el("tbody", {}, ...[whole, ...classes].map((row) => this.row(row, most))),
      )),
    );
  }

  private row(row: Row, most: number): HTMLElement {
    const number = (text: string): HTMLElement => el("td", { class: "n" }, text);
    const page = this.listing.classes.find(([name]) => name === row.class)?.[1];
    const name = row.index === null ? "all classes" : row.class;
    const random = row.random ? [number(points(row.random.mean)), number(`[${points(row.random.low)}, ${points(row.random.high)}]`)] : [];
    const bar = el("i", { class: row.fall > 0 ? "less" : "more", style: `width:${((50 * Math.abs(row.fall)) / most).toFixed(1)}%` });
    return el(
      "tr", { class: row.random && row.fall > row.random.high ? "beyond" : null },
      el("th", { scope: "row" }, page && row.index !== null ? el("a", { href: href(page) }, name) : name),
      number(thousands(row.images)), number(share(row.accuracy)), number(share(row.accuracy_without)), number(points(row.fall)), ...random,
      el("td", {}, el("span", { class: "fall", "aria-hidden": "true" }, row.fall ? bar : null)),
    );
  }

  private how(found: Found): (Node | string)[] {
    const links = found.units.slice(0, LINKED).flatMap((unit, place) => [place ? ", " : "", el("a", { href: href(unitAddress(found.layer, unit)) }, String(unit))]);
    const more = found.units.length > LINKED ? ` and ${found.units.length - LINKED} more` : "";
    const drawn = found.draws ? `; beside ${counted(found.draws, "random set")} of ${found.units.length} (${found.drawn_from})` : "";
    const images = found.images < found.of ? `${counted(found.images, "image")}, drawn from all ${thousands(found.of)} and always the same` : `all ${counted(found.images, "image")}`;
    return [
      `${found.layer} without ${found.chosen_by} (`, ...links, `${more}), each ${found.removal}${drawn}. `,
      `Over ${images}, in ${Math.round(found.seconds)} s. Truth: ${found.why}. Shaded: classes that lose more than by random sets. `,
    ];
  }
}

function conclusion(whole: Row, classes: Row[], found: Found): string {
  const worst = classes[0];
  const what = found.truth === "labels" ? "accuracy" : "agreement with the untouched model";
  const [before, after] = [share(whole.accuracy), share(whole.accuracy_without)];
  const all = `Over all images ${what} ${before === after ? `stays at ${before}` : `goes from ${before} to ${after}`}`;
  if (!worst || worst.fall <= 0) return `${all}; no class loses anything.`;
  const random = worst.random ? `, random sets cost it ${points(worst.random.mean)}` : "";
  return `${all}. ${worst.class} suffers most: ${points(worst.fall)} points (${counted(worst.images, "image")}${random}).`;
}

function table(found: Found): { name: string; columns: string[]; rows: Cell[][] } {
  return {
    name: `ablation-${found.layer}`,
    columns: ["class", "images", "accuracy", "accuracy_without", "fall", "random_mean", "random_low", "random_high"],
    rows: found.rows.map((row) => [row.class, row.images, row.accuracy, row.accuracy_without, row.fall, row.random?.mean ?? null, row.random?.low ?? null, row.random?.high ?? null]),
  };
}

function share(value: number): string {
  return `${(100 * value).toFixed(1)}%`;
}

// A difference of shares in percentage points
function points(value: number): string {
  const text = (100 * value).toFixed(1);
  return text === "-0.0" ? "0.0" : text.replace("-", "−");
}

// On the page of a unit: the way to what classes lose without it.
export function ablationAddress(layer: string, unit: number): string {
  return `ask.html#ablate=${encodeURIComponent(layer)}&units=${unit}`;
}
