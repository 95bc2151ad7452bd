// The panels beside the map: a point with its neighbours, a unit with its strongest images, and what the layer says.

import type { MapData } from "./data";
import { byId, button, el, images, percent, thousands } from "../dom";
import { href } from "../place";
import { nearestTo } from "./geometry";
import type { View } from "./decode";
import { type Cluster, type Disagreement, type Layer, viewName } from "./manifest";
import type { Thumbs } from "./thumbs";

export const NEIGHBOURS = 12;
const SIDE = 48;
const STRONGEST = 24;
const CANDIDATES = 8;

export class Panels {
  private turn = 0;

  constructor(
    private readonly data: MapData, private readonly thumbs: Thumbs, private readonly pick: (point: number) => void,
    private readonly chooseCluster: (id: number) => void,
  ) {}

  // The point that is picked, and the points nearest to it on the map, which are returned.
  point(layer: Layer, view: View, point: number, letGo: () => void): number[] {
    const room = byId("map-point");
    this.turn += 1;
    const turn = this.turn;
    room.hidden = point < 0;
    room.replaceChildren();
    if (point < 0) return [];
    const near = nearestTo(view, point, NEIGHBOURS);
    const facts = el("dl", { class: "facts" });
    const title = el("h2", {}, "…");
    room.append(
      el("div", { class: "map-one" }, this.thumbs.picture(point, 96), el("div", {}, title, facts)),
      ...(near.length ? [el("h3", {}, "Nearest on this map")] : []),
      el("div", { class: "map-thumbs" }, ...near.map((other) => this.thumbs.button(other, SIDE, this.pick))),
      el("p", { class: "map-acts" }, button("let go", letGo)),
    );
    void Promise.all([this.thumbs.about(point), this.data.order(), this.data.clusters(layer)]).then(([about, order, clusters]) => {
      if (turn !== this.turn) return;
      title.textContent = about.key;
      const cluster = layer.clusters.find(({ id }) => id === clusters?.[point]);
      const rows: [string, string][] = [
        ["class", about.label], ["split", about.split], ["sample", order ? String(order[point]) : ""], ["cluster", cluster?.name ?? ""],
      ];
      for (const [name, value] of rows) if (value) facts.append(el("dt", {}, name), el("dd", {}, value));
      const sample = order?.[point];
      if (sample !== undefined && document.querySelector("meta[name=microtome-server]")) {
        const asked = `ask.html#sample=${sample}&layer=${encodeURIComponent(layer.name)}`;
        room.querySelector(".map-acts")?.append(" ", el("a", { href: href(asked) }, "nearest in the layer itself"));
      }
    }, (error: unknown) => {
      title.textContent = `point ${point}`;
      facts.append(el("dd", {}, String(error)));
    });
    return near;
  }

  unit(layer: Layer, unit: number, levels: Uint8Array | null): void {
    const room = byId("map-unit");
    room.hidden = levels === null;
    room.replaceChildren();
    const { units } = layer;
    if (levels === null || !units) return;
    const strongest = strongestOf(levels, STRONGEST);
    const name = units.names[unit];
    const fires = levels.reduce((count, level) => count + (level >= 128 ? 1 : 0), 0);
    const maximum = units.maxima[unit];
    room.append(
      el("h2", {}, el("a", { href: href(`unit.html#layer=${encodeURIComponent(layer.name)}&unit=${unit}`) }, `Unit ${unit}`), name ? ` · ${name}` : ""),
      el("p", { class: "sub" }, `above half of its maximum${typeof maximum === "number" ? ` (${Number(maximum.toPrecision(3))})` : ""} in ${images(fires)}`),
      el("div", { class: "map-thumbs" }, ...(this.thumbs.any ? strongest.map((point) => this.thumbs.button(point, SIDE, this.pick)) : [])),
    );
    if (units.mode === "top") {
      room.append(el("p", { class: "note" }, `To keep the page small, the ${thousands(units.top ?? 0)} strongest images of each unit are shown.`));
    }
  }

  layer(layer: Layer): void {
    this.quality(layer);
    this.clusters(layer.clusters);
    this.wrong(layer.disagreements);
  }

  private quality(layer: Layer): void {
    const { quality } = layer;
    const room = byId("map-quality");
    room.hidden = !quality;
    if (!quality) return room.replaceChildren();
    const k = quality.k ?? 10;
    const rows: [string, string, string][] = [];
    if (typeof quality.trustworthiness === "number") {
      rows.push(["trustworthiness", quality.trustworthiness.toFixed(3), "1: no strangers among a point’s neighbours on the map"]);
    }
    if (typeof quality.recall === "number") {
      rows.push([`neighbours kept (of ${k})`, percent(quality.recall), "nearest neighbours of the layer that are nearest on the map, too"]);
    }
    if (typeof quality.purity === "number") {
      const features = typeof quality.purity_features === "number" ? ` (${percent(quality.purity_features)} in the layer itself)` : "";
      rows.push(["same class", `${percent(quality.purity)}${features}`, `share of the ${k} nearest on the map that have a point’s own class`]);
    }
    const warnings = quality.warnings ?? [];
    const measured = quality.sample ? `Measured on the ${viewName(layer, layer.views[0] as string)} of ${images(quality.sample)}.` : "";
    room.replaceChildren(
      el("h2", {}, "Is the map true?"),
      ...warnings.map((text) => el("p", { class: "untrained" }, text)),
      el("dl", { class: "facts" }, ...rows.flatMap(([name, value, meaning]) => [
        el("dt", {}, name), el("dd", {}, el("b", {}, value), " ", el("small", {}, meaning))])),
      measured && rows.length ? el("p", { class: "note" }, `${measured} Distances between clusters, and their sizes, say little.`) : "",
    );
  }

  private clusters(clusters: readonly Cluster[]): void {
    const room = byId("map-clusters");
    room.hidden = clusters.length === 0;
    const sorted = [...clusters].sort((a, b) => b.samples - a.samples || a.id - b.id);
    room.replaceChildren(
      el("h2", {}, `${thousands(clusters.length)} cluster${clusters.length === 1 ? "" : "s"}`),
      el("ul", { class: "map-list" }, ...sorted.map(({ id, name, samples }) =>
        el("li", {}, button(name || `cluster ${id}`, () => this.chooseCluster(id)), " ", el("small", {}, thousands(samples))))),
    );
  }

  private wrong(candidates: readonly Disagreement[]): void {
    const room = byId("map-wrong");
    room.hidden = candidates.length === 0;
    const list = el("ul", { class: "map-wrong" });
    const more = button("", () => add(candidates.length));
    let shown = 0;
    const add = (until: number): void => {
      for (; shown < Math.min(until, candidates.length); shown += 1) list.append(this.candidate(candidates[shown] as Disagreement));
      more.hidden = shown >= candidates.length;
      more.textContent = `show ${thousands(candidates.length - shown)} more`;
    };
    add(CANDIDATES);
    room.replaceChildren(
      el("h2", {}, "Candidates for wrong labels"),
      el("p", { class: "note" }, "Images whose nearest neighbours in the layer have another class. Look before you change a label."),
      list, more,
    );
  }

  private candidate({ i, class: own, neighbors_class: other, agreement }: Disagreement): HTMLElement {
    const { classes } = this.data.manifest;
    const name = (label: number | string): string => (typeof label === "number" ? classes[label] ?? `class ${label}` : label);
    return el("li", {},
      this.thumbs.button(i, SIDE, this.pick),
      el("span", {}, "labelled ", el("b", {}, name(own)), ", neighbours say ", el("b", {}, name(other)), " ",
        el("small", {}, `${percent(agreement)} agree`)));
  }
}

// The points with the highest levels, highest first, ties by number; none at 0.
export function strongestOf(levels: Uint8Array, count: number): number[] {
  const found: number[] = [];
  for (let level = 255; level > 0 && found.length < count; level -= 1) {
    for (let i = levels.indexOf(level); i >= 0 && found.length < count; i = levels.indexOf(level, i + 1)) found.push(i);
  }
  return found;
}
