// Two layers side by side, by concept: #a=NAME&b=NAME.

import { byId, el } from "../dom";
import { chip, unitAddress } from "./cards";
import { copyButtons, type Table } from "./copying";
import type { ConceptEntry, LayerEntry, Listing } from "./data";
import { iou } from "./format";
import { fields, fragment, href, picture, setFragment, written } from "../place";
import { load } from "./registry";
import { firstThumbnails } from "./strips";

// By concept: [layer, detectors, best unit, its IoU, shape of its strip], where a layer has any.
type Depths = Record<string, [number, number, number, number, string][]>;

interface Side {
  detectors: number;
  unit: number;
  score: number;
  shape: string;
}

interface Row {
  concept: ConceptEntry;
  sides: [Side | null, Side | null];
}

type Which = "all" | "both" | "a" | "b";

export async function startLayers(signal: AbortSignal): Promise<void> {
  const [listing, depths] = await Promise.all([load<Listing>("index"), load<Depths>("depths")]);
  if (!signal.aborted) new LayersPage(listing, depths).start(signal);
}

class LayersPage {
  private readonly form = byId<HTMLFormElement>("pair");

  constructor(private readonly listing: Listing, private readonly depths: Depths) {}

  start(signal: AbortSignal): void {
    for (const name of ["a", "b"]) {
      this.control(name).replaceChildren(...this.listing.layers.map((layer) => el("option", { value: layer.name }, layer.name)));
    }
    this.read();
    this.form.addEventListener("input", () => {
      setFragment(written(["a", "b", "show"].map((name): [string, string] => [name, this.control(name).value])));
      this.draw();
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => {
      this.read();
      this.draw();
    }, { signal });
    byId("copy").append(copyButtons(() => this.table()));
    this.draw();
  }

  private control(name: string): HTMLSelectElement {
    return this.form.elements.namedItem(name) as HTMLSelectElement;
  }

  private read(): void {
    const found = fields(fragment()), own = this.listing.layers.filter(({ baseline }) => !baseline);
    const fallback: Record<string, string> = { a: own[0]?.name ?? "", b: own[own.length - 1]?.name ?? "", show: "all" };
    for (const [name, value] of Object.entries(fallback)) {
      this.control(name).value = found.get(name) ?? value;
      if (!this.control(name).value) this.control(name).value = value;
    }
  }

  private number(side: "a" | "b"): number {
    return this.listing.layers.findIndex(({ name }) => name === this.control(side).value);
  }

  private rows(): Row[] {
    const numbers = [this.number("a"), this.number("b")];
    const which = this.control("show").value as Which;
    const rows = this.listing.concepts.map((concept): Row => {
      const known = this.depths[String(concept[0])] ?? [];
      const [a = null, b = null] = numbers.map((number): Side | null => {
        const found = known.find(([layer]) => layer === number);
        return found ? { detectors: found[1], unit: found[2], score: found[3], shape: found[4] } : null;
      });
      return { concept, sides: [a, b] };
    });
    const has = (side: Side | null): boolean => (side?.detectors ?? 0) > 0;
    const wanted: Record<Which, (row: Row) => boolean> = {
      all: ({ sides: [a, b] }) => has(a) || has(b),
      both: ({ sides: [a, b] }) => has(a) && has(b),
      a: ({ sides: [a, b] }) => has(a) && !has(b),
      b: ({ sides: [a, b] }) => !has(a) && has(b),
    };
    const best = ({ sides: [a, b] }: Row): number => Math.max(a?.score ?? 0, b?.score ?? 0);
    return rows.filter(wanted[which] ?? wanted.all).sort((one, two) => best(two) - best(one) || one.concept[0] - two.concept[0]);
  }

  private draw(): void {
    const rows = this.rows();
    const entries = [this.listing.layers[this.number("a")], this.listing.layers[this.number("b")]];
    entries.forEach((entry, place) => {
      const head = byId(place ? "head-b" : "head-a");
      head.replaceChildren(entry ? el("a", { href: href(entry.page) }, entry.name) : "");
    });
    byId("rows").replaceChildren(...rows.map(({ concept, sides }) => el(
      "tr", {}, el("th", { scope: "row" }, el("a", { href: href(`concept.html#concept=${concept[0]}`) }, concept[1])), el("td", {}, chip(this.listing, concept[2])),
      ...sides.flatMap((side, place) => this.cells(side, entries[place])),
      el("td", { class: "n" }, difference(sides)),
    )));
    byId("none").hidden = rows.length > 0;
    byId("shown").textContent = `${rows.length} concepts`;
  }

  private cells(side: Side | null, layer: LayerEntry | undefined): HTMLElement[] {
    if (!side || !layer) return [el("td", { class: "n none" }, "·"), el("td", { class: "n none" }, "·"), el("td", {})];
    const strip = el("a", {
      class: "first-patches small", href: href(unitAddress(layer.name, side.unit)), "aria-label": `unit ${side.unit} of ${layer.name}`, title: `unit ${side.unit}`,
    }, ...firstThumbnails(picture(`${layer.strips}${side.unit}.jpg`), side.shape));
    return [el("td", { class: side.detectors ? "n" : "n none" }, String(side.detectors)), el("td", { class: "n" }, iou(side.score)), el("td", {}, strip)];
  }

  private table(): Table {
    const names = [this.control("a").value, this.control("b").value];
    return {
      name: "layers", columns: ["concept", "category", ...names.flatMap((_, place) => ["layer", "detectors", "best_iou", "best_unit"].map((word) => `${word}_${place ? "b" : "a"}`))],
      rows: this.rows().map(({ concept, sides }) => [
        concept[1], this.listing.categories[concept[2]] ?? "",
        ...sides.flatMap((side, place) => [names[place] ?? "", side?.detectors ?? 0, side?.score ?? null, side?.unit ?? null]),
      ]),
    };
  }
}

function difference([a, b]: Row["sides"]): string {
  if (!a || !b) return "";
  const change = b.score - a.score;
  return `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}`;
}
