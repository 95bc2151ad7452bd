// The page of one concept: #concept=17. Its units in every layer, and where in depth it appears.

import { byId, el, svg } from "../dom";
import { chip, meter, unitAddress } from "./cards";
import { copyButtons, type Table } from "./copying";
import type { ConceptEntry, ConceptFile, ConceptLayer, LayerEntry, Listing } from "./data";
import { counted, iou, thousands } from "./format";
import { listenTo } from "./keys";
import { fields, fragment, href, picture, setFragment } from "../place";
import { load } from "./registry";
import { firstThumbnails } from "./strips";

const FIRST = 8;

export async function startConcept(signal: AbortSignal): Promise<void> {
  const listing = await load<Listing>("index");
  const page = new ConceptPage(listing, signal);
  window.addEventListener("hashchange", () => void page.show(), { signal });
  await page.show();
}

class ConceptPage {
  private at = -1;

  constructor(private readonly listing: Listing, signal: AbortSignal) {
    listenTo([
      { key: "]", does: "next concept", act: () => this.step(1) },
      { key: "[", does: "previous concept", act: () => this.step(-1) },
    ], signal);
  }

  async show(): Promise<void> {
    const asked = fields(fragment()).get("concept") ?? "";
    const { concepts } = this.listing;
    this.at = /^\d{1,9}$/.test(asked) ? concepts.findIndex(([id]) => id === Number(asked)) : concepts.findIndex(([, name]) => name === asked);
    if (!asked && concepts.length) this.at = 0;
    const entry = concepts[this.at];
    byId("concept-body").hidden = !entry;
    byId("nothing").hidden = Boolean(entry);
    if (!entry) {
      byId("title").textContent = "No such concept";
      byId("nothing").replaceChildren(`This run has no concept ${asked}. `, el("a", { href: href("concepts.html") }, "All concepts"));
      return;
    }
    const file = await load<ConceptFile>(`concepts/${Math.floor(entry[0] / this.listing.perFile)}`);
    if (concepts[this.at] === entry) this.draw(entry, file[String(entry[0])] ?? []);
  }

  private draw(entry: ConceptEntry, layers: ConceptLayer[]): void {
    const [, name, category, images, detectors] = entry;
    document.title = `${name} · Microtome`;
    byId("title").textContent = name;
    byId("about").replaceChildren(
      chip(this.listing, category), ` in ${counted(images, "image")} · `,
      detectors ? `${counted(detectors, "detector")}` : `no detector (no unit of which it is the label has an IoU above ${this.listing.bar})`,
    );
    byId("depth").replaceChildren(this.depth(layers));
    byId("copy").replaceChildren(copyButtons(() => this.table(entry, layers)));
    const known = layers.filter(([, , , units]) => units.length);
    byId("layers").replaceChildren(...known.map((one) => this.layer(entry, one)).sort((a, b) => a.order - b.order).map(({ node }) => node));
    byId("none").hidden = known.length > 0;
  }

  private entryOf(number: number): LayerEntry {
    return this.listing.layers[number] as LayerEntry;
  }

  // Best IoU of each layer as a point, detectors as bars, in the order of the layers
  private depth(layers: ConceptLayer[]): HTMLElement {
    const own = layers.filter(([number]) => !this.entryOf(number).baseline);
    const style = this.listing.categoryStyles[this.listing.concepts[this.at]?.[2] ?? 0] ?? "";
    const best = ([, , , units]: ConceptLayer): number => units[0]?.[1] ?? 0;
    const highest = Math.max(0.1, ...own.map(best)), most = Math.max(1, ...own.map((layer) => layer[1]));
    const top = Math.ceil(highest * 10) / 10;
    return el("div", { class: "depth" }, ...own.map((layer) => {
      const [number, detectors] = layer, { name, page } = this.entryOf(number), score = best(layer);
      const words = `${name}: best IoU ${iou(score)}, ${counted(detectors, "detector")}`;
      const picture = svg(
        "svg", { viewBox: "0 0 40 100", class: style, role: "img", "aria-label": words },
        svg("title", {}, words),
        svg("rect", { x: 8, width: 24, y: 100 - (96 * detectors) / most, height: (96 * detectors) / most, class: "count" }),
        svg("line", { x1: 0, x2: 40, y1: 100 - (96 * this.listing.bar) / top, y2: 100 - (96 * this.listing.bar) / top, class: "bar-line" }),
        svg("circle", { cx: 20, cy: 100 - (96 * score) / top, r: 4, class: "best" }),
      );
      return el("a", { href: href(page), title: words }, picture, el("b", {}, iou(score)), el("small", {}, thousands(detectors)), el("span", {}, name));
    }));
  }

  private layer(entry: ConceptEntry, [number, detectors, passing, units]: ConceptLayer): { node: HTMLElement; order: number } {
    const layer = this.entryOf(number);
    const style = this.listing.categoryStyles[entry[2]] ?? "";
    const rows = units.map(([unit, score, ceiling, label, shape]) => el(
      "li", { class: label ? "is-label" : "" },
      el(
        "a", { class: "first-patches", href: href(unitAddress(layer.name, unit)), "aria-label": `unit ${unit} of ${layer.name}` },
        ...firstThumbnails(picture(`${layer.strips}${unit}.jpg`), shape),
      ),
      el("p", {}, el("a", { href: href(unitAddress(layer.name, unit)) }, `unit ${unit}`), " ", el("b", {}, iou(score)), label ? null : el("small", {}, " labelled otherwise")),
      meter(score, ceiling, style, this.listing.bar),
    ));
    const more = rows.length > FIRST ? el("button", {
      type: "button", class: "plain", click: () => {
        for (const row of rows) row.hidden = false;
        more?.remove();
      },
    }, `${rows.length - FIRST} more`) : null;
    rows.slice(FIRST).forEach((row) => { row.hidden = true; });
    const said = `${counted(detectors, "detector")}${passing > detectors ? `; ${counted(passing, "unit")} above ${this.listing.bar}` : ""}${layer.baseline ? "; a rotated baseline" : ""}`;
    const node = el(
      "section", { class: "concept-layer" }, el("h2", {}, el("a", { href: href(layer.page) }, layer.name), " ", el("small", {}, said)),
      el("ol", { class: "concept-units" }, ...rows), more,
    );
    return { node, order: (layer.baseline ? 1e6 : 0) - (units[0]?.[1] ?? 0) };
  }

  private table([id, name, category]: ConceptEntry, layers: ConceptLayer[]): Table {
    return {
      name: `concept-${id}`, columns: ["concept", "category", "layer", "unit", "iou", "ceiling", "is_label"],
      rows: layers.flatMap(([number, , , units]) => units.map(([unit, score, ceiling, label]) => [
        name, this.listing.categories[category] ?? "", this.entryOf(number).name, unit, score, ceiling, label,
      ])),
    };
  }

  private step(by: number): void {
    const next = this.listing.concepts[this.at + by];
    if (!next) return;
    setFragment(`concept=${next[0]}`, true);
    void this.show();
  }
}
