// The page of one unit: #layer=NAME&unit=12. It shows what its card shows, at every tau, and where to go from here.

import { byId, el } from "../dom";
import { chip, conceptLink, fillCard, meter, unitAddress } from "./cards";
import { copyButtons } from "./copying";
import type { Labels, LayerData, LayerEntry, Listing } from "./data";
import { iou, percent, short, thousands } from "./format";
import { listenTo } from "./keys";
import { offerUnitActions } from "./live/ask";
import { offerUnit } from "./live/explain";
import { fields, fragment, href, setFragment, written } from "../place";
import { load } from "./registry";

export async function startUnit(signal: AbortSignal): Promise<void> {
  const listing = await load<Listing>("index");
  const page = new UnitPage(listing, signal);
  window.addEventListener("hashchange", () => void page.show(), { signal });
  await page.show();
}

class UnitPage {
  private data: LayerData | null = null;
  private unit = -1;

  constructor(private readonly listing: Listing, signal: AbortSignal) {
    listenTo([
      { key: "j", does: "next unit", act: () => this.step(1) },
      { key: "k", does: "previous unit", act: () => this.step(-1) },
      { key: "]", does: "next layer", act: () => this.layer(1) },
      { key: "[", does: "previous layer", act: () => this.layer(-1) },
    ], signal);
  }

  async show(): Promise<void> {
    const found = fields(fragment());
    const name = found.get("layer") ?? this.listing.layers[0]?.name ?? "";
    const entry = this.listing.layers.find((layer) => layer.name === name);
    const unit = Number(found.get("unit") ?? "0");
    if (!entry || !Number.isInteger(unit) || unit < 0 || unit >= entry.units) {
      this.nothing(entry, name, found.get("unit") ?? "");
      return;
    }
    const data = await load<LayerData>(entry.data);
    this.data = data;
    this.unit = unit;
    document.title = `${name} · unit ${unit} · Microtome`;
    byId("title").replaceChildren(el("a", { href: href(entry.page) }, name), ` · unit ${unit}`);
    this.ways(entry);
    const first = data.taus[0] as Labels;
    const card = el("article", { class: "card single" });
    fillCard(card, data, unit, first);
    byId("card").replaceChildren(card);
    offerUnit(card, data, unit);
    offerUnitActions(data, unit);
    byId("labels").replaceChildren(...data.taus.map((at) => this.labels(at)));
    this.best(first);
    byId("unit-body").hidden = false;
    byId("nothing").hidden = true;
  }

  private nothing(entry: LayerEntry | undefined, layer: string, unit: string): void {
    const text = entry ? `${layer} has ${thousands(entry.units)} units, 0 to ${entry.units - 1}; there is no unit ${unit}.` : `This run has no layer ${layer}.`;
    byId("title").textContent = "No such unit";
    byId("nothing").replaceChildren(text, " ", el("a", { href: href(entry?.page ?? "index.html") }, entry ? "All units of the layer" : "The layers"));
    byId("nothing").hidden = false;
    byId("unit-body").hidden = true;
  }

  private ways(entry: LayerEntry): void {
    const last = entry.units - 1;
    const link = (unit: number, words: string): HTMLElement | string => (unit < 0 || unit > last ? "" : el("a", { href: href(unitAddress(entry.name, unit)) }, words));
    const ways = [
      link(this.unit - 1, `← unit ${this.unit - 1}`), link(this.unit + 1, `unit ${this.unit + 1} →`),
      el("a", { href: href(`${entry.page}#unit-${this.unit}`) }, "among the units of its layer"),
    ];
    byId("ways").replaceChildren(...ways.filter((way) => way !== "").flatMap((way, place) => (place ? [" · ", way] : [way])));
  }

  // A row of the table of labels: one a tau
  private labels(at: Labels): HTMLElement {
    const data = this.data as LayerData, unit = this.unit, label = at.label[unit] ?? -1;
    const concept = data.concepts[label];
    const number = (text: string): HTMLElement => el("td", { class: "n" }, text);
    return el(
      "tr", {},
      el("th", { scope: "row" }, at.tau === null ? "most information" : `τ = ${percent(at.tau)}`),
      el("td", {}, concept ? conceptLink(data, label) : "no concept"), el("td", {}, concept ? chip(data, concept[1]) : null),
      number(concept ? iou(at.iou[unit]) : "–"), number(concept ? iou(at.ceiling[unit]) : "–"), number(at.val ? iou(at.val[unit]) : "–"),
      el("td", {}, at.detector[unit] ? "detector" : "no detector"), number(short(at.threshold[unit])), number(percent(at.realised[unit])),
    );
  }

  private best(at: Labels): void {
    const data = this.data as LayerData, unit = this.unit;
    const rows = (at.best[unit] ?? []).map((concept, place) => ({
      concept, entry: data.concepts[concept], score: at.bestIou[unit]?.[place] ?? null, ceiling: at.bestCeiling[unit]?.[place] ?? null,
    }));
    const told = rows.flatMap((row) => (row.entry ? [{ ...row, entry: row.entry }] : []));
    byId("best-rows").replaceChildren(...told.map(({ concept, entry, score, ceiling }) => el(
      "tr", {}, el("th", { scope: "row" }, conceptLink(data, concept)), el("td", {}, chip(data, entry[1])), el("td", { class: "n" }, iou(score)),
      el("td", { class: "n" }, iou(ceiling)), el("td", { class: "wide" }, meter(score, ceiling, data.categoryStyles[entry[1]] ?? "", data.bar)),
    )));
    byId("best-copy").replaceChildren(at.val ? "Ordered by the IoU on the train split, which chooses the label. " : "", copyButtons(() => ({
      name: `${data.layer}-unit-${unit}`, columns: ["layer", "unit", "concept", "category", "iou", "ceiling"],
      rows: told.map(({ entry, score, ceiling }) => [data.layer, unit, entry[0], data.categories[entry[1]] ?? "", score, ceiling]),
    })));
  }

  private move(layer: string, unit: number): void {
    setFragment(written([["layer", layer], ["unit", String(unit)]]), true);
    void this.show();
  }

  private step(by: number): void {
    const data = this.data;
    const next = this.unit + by;
    if (data && next >= 0 && next < data.state.length) this.move(data.layer, next);
  }

  private layer(by: number): void {
    const here = this.listing.layers.findIndex(({ name }) => name === this.data?.layer);
    const next = here < 0 ? undefined : this.listing.layers[here + by];
    if (next) this.move(next.name, Math.min(this.unit, next.units - 1));
  }
}
