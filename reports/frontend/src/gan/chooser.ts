// The chooser of units on the page of a generator: a layer, a concept, a ranking, and its units best first.

import { byId, el } from "../dom";
import { ask } from "../pages/live/asking";
import type { Failed, LayerAbout } from "./asking";

const PAGE = 60;
const NAMES: Record<string, string> = {
  ace: "average causal effect",
  alpha: "optimised alpha",
  information: "IoU, threshold of most information",
  iou: "IoU, best threshold",
};
const NOTHING = "none";

// POST units
export interface UnitsOfLayer {
  layer: string;
  top: number[];
  labels: string[];
  states: string[];
  concepts: { id: number; name: string; category: string; by: string[] }[];
}

type Ranked = [number, number | null][]; // unit and score, best first

export interface Told {
  layer: (name: string) => void; // another one was chosen
  units: (units: number[], on: boolean) => void; // these were
  has: (unit: number) => boolean; // whether a unit is chosen
  trouble: Failed;
}

export class Chooser {
  private readonly layers = byId<HTMLSelectElement>("layer");
  private readonly find = byId<HTMLInputElement>("find");
  private readonly concepts = byId<HTMLSelectElement>("concept");
  private readonly by = byId<HTMLSelectElement>("by");
  private readonly list = byId("units");
  private readonly more = byId("more");
  private readonly asked = new Map<string, Promise<UnitsOfLayer>>();
  private readonly known = new Map<string, UnitsOfLayer>();
  private readonly rankings = new Map<string, Promise<Ranked>>();
  private layer = "";
  private listed: Ranked = [];
  private shown = PAGE;
  private wantedRanking = "";

  constructor(layers: LayerAbout[], private readonly told: Told) {
    this.layers.replaceChildren(...layers.map(({ name, units, grid }) => el("option", { value: name }, `${name} · ${units} units, ${grid.join("×")}`)));
    this.layers.addEventListener("change", () => told.layer(this.layers.value));
    this.find.addEventListener("input", () => this.fillConcepts());
    this.concepts.addEventListener("change", () => this.fillRankings());
    this.by.addEventListener("change", () => {
      this.wantedRanking = this.by.value; // kept for other concepts; else each has its best ranking
      this.fill();
    });
    this.more.addEventListener("click", () => {
      this.shown += PAGE;
      this.fillList();
    });
    byId("top").addEventListener("submit", (event) => {
      event.preventDefault();
      const units = this.listed.slice(0, Number(byId<HTMLInputElement>("count").value)).map(([unit]) => unit);
      if (units.length) told.units(units, true);
    });
  }

  // What the server knows of the units of a layer, asked once.
  about(name: string): Promise<UnitsOfLayer> {
    return once(this.asked, name, async () => {
      const found = await ask<UnitsOfLayer>("units", { layer: name });
      this.known.set(name, found);
      return found;
    });
  }

  // The same where it has come already.
  now(name: string): UnitsOfLayer | null {
    return this.known.get(name) ?? null;
  }

  // Show another layer's units.
  async show(name: string): Promise<void> {
    this.layer = name;
    this.layers.value = name;
    await this.about(name);
    if (this.layer === name) this.fillConcepts();
  }

  // What is chosen has changed.
  refresh(): void {
    for (const box of this.list.querySelectorAll("input")) box.checked = this.told.has(Number(box.dataset.unit));
  }

  private ranking(concept: number, by: string): Promise<Ranked> {
    const layer = this.layer;
    return once(this.rankings, JSON.stringify([layer, concept, by]), async () => (await ask<{ units: Ranked }>("ranking", { layer, concept, by })).units);
  }

  private fillConcepts(): void {
    const found = this.now(this.layer), wanted = this.find.value.trim().toLowerCase();
    if (!found) return;
    const before = this.concepts.options.length ? this.concepts.value : mostCommon(found);
    const fitting = found.concepts.filter(({ name }) => name.toLowerCase().includes(wanted));
    fitting.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0));
    const options = fitting.map(({ id, name, category }) => el("option", { value: id }, `${name} (${category})`));
    if (!wanted) options.unshift(el("option", { value: "" }, "all units by number"));
    if (!options.length) options.push(el("option", { value: NOTHING, disabled: true }, "no such concept"));
    this.concepts.replaceChildren(...options);
    if (options.some(({ value }) => value === before)) this.concepts.value = before;
    this.fillRankings();
  }

  private fillRankings(): void {
    const mine = this.now(this.layer)?.concepts.find(({ id }) => String(id) === this.concepts.value);
    const options = (mine?.by ?? []).map((name) => el("option", { value: name }, NAMES[name] ?? name));
    this.by.replaceChildren(...(options.length ? options : [el("option", { value: "" }, "number")]));
    if (mine?.by.includes(this.wantedRanking)) this.by.value = this.wantedRanking;
    this.fill();
  }

  private fill(): void {
    const by = this.by.value, mine = this.layer, concept = this.concepts.value;
    this.shown = PAGE;
    if (concept === NOTHING || !by) {
      this.listed = concept === NOTHING ? [] : (this.now(mine)?.top ?? []).map((_, unit) => [unit, null]);
      this.fillList();
      return;
    }
    this.ranking(Number(concept), by).then((units) => {
      if (mine !== this.layer || concept !== this.concepts.value || by !== this.by.value) return;
      this.listed = units;
      this.fillList();
    }).catch(this.told.trouble);
  }

  private fillList(): void {
    const found = this.now(this.layer);
    if (!found) return;
    this.list.replaceChildren(...this.listed.slice(0, this.shown).map(([unit, score]) => {
      const box = el("input", { type: "checkbox", "data-unit": unit }), state = found.states[unit];
      box.checked = this.told.has(unit);
      box.addEventListener("change", () => this.told.units([unit], box.checked));
      const name = `${found.labels[unit] ?? ""}${state === "ok" ? "" : ` (${state ?? ""})`}`;
      return el("li", {}, el("label", {}, box, el("span", {}, `unit ${unit}`), el("span", { class: "name" }, name), el("span", { class: "score" }, score === null ? "" : score.toPrecision(3))));
    }));
    if (!this.listed.length) this.list.append(el("li", { class: "note" }, "No unit meets it."));
    this.more.hidden = this.listed.length <= this.shown;
  }
}

// What `make` gives, kept under the key unless it fails.
function once<T>(kept: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const before = kept.get(key);
  if (before) return before;
  const made = make();
  kept.set(key, made);
  made.catch(() => kept.delete(key));
  return made;
}

// The concept that most units are labelled with: shown first.
function mostCommon(found: UnitsOfLayer): string {
  const counts = new Map<string, number>();
  for (const label of found.labels) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  let first = "", most = 0;
  for (const { id, name } of found.concepts) {
    const count = counts.get(name) ?? 0;
    if (count > most) [first, most] = [String(id), count];
  }
  return first;
}
