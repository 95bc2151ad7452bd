// One unit of a layer, as a card of its layer's page and as the middle of its own.

import { type Child, el, svg } from "../dom";
import type { Labels, LayerData, Maybe } from "./data";
import { iou, percent, short, thousands } from "./format";
import { href, picture } from "../place";
import { thumbnail } from "./strips";

export function chip(data: { categories: string[]; categoryStyles: string[] }, category: number): HTMLElement {
  return el("span", { class: `chip ${data.categoryStyles[category] ?? ""}` }, el("i"), data.categories[category] ?? "");
}

// A concept's place on the scale from 0 to 1: its IoU as a bar, its ceiling as a tick, the bar of detectors dotted.
export function meter(value: Maybe, ceiling: Maybe, style: string, bar: number): HTMLElement {
  const title = `IoU ${iou(value)}, ceiling ${iou(ceiling)}`;
  return el(
    "span", { class: "meter", role: "img", "aria-label": title, title },
    el("i", { class: `bar ${style}`, style: `width:${100 * (value ?? 0)}%` }),
    el("i", { class: "pass", style: `left:${100 * bar}%` }),
    ceiling === null ? null : el("i", { class: "ceiling", style: `left:${100 * Math.min(ceiling, 1)}%` }),
  );
}

export function conceptLink(data: LayerData, concept: number): HTMLElement {
  const entry = data.concepts[concept];
  const name = entry?.[0] ?? "";
  return el("a", { href: href(`concept.html#concept=${entry?.[2] ?? 0}`), title: `all units that see ${name}` }, name);
}

export function unitAddress(layer: string, unit: number): string {
  return `unit.html#layer=${encodeURIComponent(layer)}&unit=${unit}`;
}

function patchesOf(data: LayerData, unit: number): HTMLElement {
  const list = data.patches.units[unit] ?? [];
  const size = data.patches.size;
  const count = list.length;
  const columns = count > 6 ? Math.ceil(count / 2) : Math.max(count, 4);
  const box = el("div", { class: `patches cols-${Math.min(columns, 8)}` });
  const strip = count ? picture(`${data.strips}${unit}.jpg`) : "";
  list.forEach(([key, value, wide, high], rank) => {
    const title = `#${rank + 1} · ${short(value)} · ${data.patches.keys[key] ?? ""}`;
    box.append(thumbnail(strip, rank, count, wide / size, high / size, title));
  });
  if (!count) box.append(el("p", { class: "none" }, "No patches: this unit never responds."));
  return box;
}

// What the unit looks for: an image synthesised for it, and what of its first patches it responds to, by rank.
function explained(data: LayerData, unit: number): Child {
  const about = data.explained, shown = about?.units[String(unit)];
  if (!about || !shown || (!shown[0] && !shown[1])) return null;
  const box = el("div", { class: "explained" });
  if (shown[0]) {
    const title = `image synthesised for unit ${unit}`;
    box.append(el("img", { class: "made", src: picture(`${about.folder}${unit}.webp`), alt: title, title, loading: "lazy" }));
  }
  if (shown[1]) {
    const words = `${about.method} in its first ${shown[1]}${shown[1] === 1 ? " patch" : " patches"}`;
    box.append(el(
      "figure", {},
      el("img", { src: picture(`${about.folder}${unit}-patches.webp`), alt: words, loading: "lazy", style: `aspect-ratio:${shown[1]}` }),
      el("figcaption", {}, words),
    ));
  }
  return box;
}

// Log counts over equal bins from the least to the greatest value; what exceeds the threshold is coloured.
function histogram(data: LayerData, unit: number, threshold: Maybe): HTMLElement {
  const heights = data.histogram[unit], low = data.minimum[unit] ?? null, high = data.maximum[unit] ?? null;
  const words = `activations from ${short(low)} to ${short(high)}, threshold ${short(threshold)}`;
  const figure = el("figure", { class: "histogram" });
  if (!heights || low === null || high === null) return figure;
  const bins = heights.length, top = data.levels.length - 1;
  let path = `M0 ${top}`;
  for (let bin = 0; bin < bins; bin++) {
    const y = top - data.levels.indexOf(heights[bin] as string);
    path += `L${bin} ${y}L${bin + 1} ${y}`;
  }
  path += `L${bins} ${top}Z`;
  const at = threshold === null || high <= low ? null : Math.min(Math.max((threshold - low) / (high - low), 0), 1);
  const plot = svg("svg", { viewBox: `0 0 ${bins} ${top}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: path, class: "below" }));
  if (at !== null) {
    const clip = `clip-${unit}`;
    plot.append(
      svg("clipPath", { id: clip }, svg("rect", { x: at * bins, y: 0, width: bins, height: top })),
      svg("path", { d: path, class: "above", "clip-path": `url(#${clip})` }),
      svg("line", { x1: at * bins, x2: at * bins, y1: 0, y2: top, class: "mark", "vector-effect": "non-scaling-stroke" }),
    );
  }
  figure.setAttribute("title", `Log count of ${thousands(data.positions[unit] ?? 0)} positions; ${words}`);
  figure.append(plot, el("figcaption", {}, el("span", {}, short(low)), el("b", {}, `T ${short(threshold)}`), el("span", {}, short(high))));
  return figure;
}

function nextBest(data: LayerData, unit: number, at: Labels): HTMLElement {
  const list = el("ol", { class: "next" });
  (at.best[unit] ?? []).forEach((concept, place) => {
    const entry = data.concepts[concept];
    if (!entry || concept === at.label[unit]) return;
    const score = at.bestIou[unit]?.[place] ?? null;
    const name = el("span", { class: "name", title: `${entry[0]} (${data.categories[entry[1]] ?? ""})` }, conceptLink(data, concept));
    list.append(el(
      "li", {}, name, meter(score, at.bestCeiling[unit]?.[place] ?? null, data.categoryStyles[entry[1]] ?? "", data.bar),
      el("span", { class: "n" }, iou(score)),
    ));
  });
  if (!list.childNodes.length) {
    const none = (at.label[unit] ?? -1) < 0 ? "its mask meets no concept" : "its mask meets no other concept";
    list.append(el("li", { class: "none" }, data.categories.length ? none : "nothing is labelled in these data"));
  }
  return list;
}

// The classes whose accuracy falls most when this unit is removed, where that was measured.
function needing(data: LayerData, unit: number): Child {
  const list = data.classes?.units[unit] ?? [];
  if (!data.classes || !list.length) return null;
  const line = el("p", { class: "needing", title: "Points of accuracy that the class loses when this unit alone is removed" }, "needed by ");
  list.forEach(([number, fall], place) => {
    const link = el("a", { href: href(data.classes?.pages[number] ?? "") }, data.classes?.names[number] ?? "");
    line.append(place ? ", " : "", link, " ", el("small", {}, `(−${(100 * fall).toFixed(1)})`));
  });
  return line;
}

function notes(data: LayerData, unit: number, at: Labels): Child {
  const said: string[] = [];
  const state = data.states[data.state[unit] ?? 0];
  if (state === "dead") said.push("Dead: 0 at every position of every sample.");
  if (state === "constant") said.push("Constant: the same value everywhere, so its mask is empty.");
  if (state === "saturated") said.push("Saturated: it ties at its maximum on more than τ of the positions; the mask is where it is there.");
  const bad = data.nan[unit] ?? 0;
  if (bad) said.push(`${thousands(bad)} NaN values, left out of every count.`);
  const label = at.label[unit] ?? -1, ceiling = at.ceiling[unit] ?? null;
  if (label >= 0 && ceiling !== null && ceiling <= data.bar) {
    said.push(`No mask of this size can pass ${data.bar} with ${data.concepts[label]?.[0] ?? ""}.`);
  }
  return said.length ? el("p", { class: "notes" }, said.join(" ")) : null;
}

// The label by the threshold of most information beside that of the fixed tau, whichever of them the card shows.
function beside(data: LayerData, unit: number, at: Labels): Child {
  const informed = data.taus[data.taus.length - 1];
  const first = data.taus[0];
  if (!informed || !first || informed.tau !== null) return null;
  const other = at === informed ? first : informed, label = other.label[unit] ?? -1;
  return el(
    "p", { class: "details beside" }, other === informed ? "most information: " : `τ ${percent(other.tau)}: `,
    el("b", {}, label >= 0 ? data.concepts[label]?.[0] ?? "" : "no concept"), label >= 0 ? ` ${iou(other.iou[unit])}` : null,
    other === informed && label >= 0 ? `, above T ${short(other.threshold[unit])} on ${percent(other.realised[unit])}` : null,
  );
}

function facts(data: LayerData, unit: number, at: Labels): string[] {
  const said = [
    `${at.tau === null ? "above T on " : "realised τ "}${percent(at.realised[unit])}`, `mean ${short(data.mean[unit])}`,
    `std ${short(data.std[unit])}`, `${percent(data.dead[unit])} ≤ 0`,
  ];
  if (at.tau === null && (at.label[unit] ?? -1) >= 0) {
    said.unshift(`information ${percent(at.information?.[unit])}`, `IoU ${iou(at.half?.[unit])} where it was chosen`);
  }
  const val = at.val?.[unit] ?? null;
  if (val !== null) said.unshift(`val IoU ${iou(val)}`);
  return said;
}

export function fillCard(card: HTMLElement, data: LayerData, unit: number, at: Labels): void {
  const label = at.label[unit] ?? -1;
  const concept = label >= 0 ? data.concepts[label] : undefined;
  const state = data.states[data.state[unit] ?? 0] ?? "ok";
  const ceiling = at.ceiling[unit] ?? null;
  const children: Child[] = [
    el(
      "header", {},
      el("a", { class: "unit", href: href(unitAddress(data.layer, unit)), title: "the page of this unit" }, `unit ${unit}`),
      state !== "ok" ? el("span", { class: "state" }, state) : null,
      concept ? chip(data, concept[1]) : null,
    ),
    el(
      "h2", {},
      el("span", { class: "name" }, concept ? conceptLink(data, label) : "no concept"),
      concept ? el("span", { class: "score" }, iou(at.iou[unit])) : null,
    ),
    concept
      ? el("div", { class: "main-meter" }, meter(at.iou[unit] ?? null, ceiling, data.categoryStyles[concept[1]] ?? "", data.bar), el("span", { class: "n" }, `ceiling ${iou(ceiling)}`))
      : el("div", { class: "main-meter" }),
    beside(data, unit, at),
    patchesOf(data, unit),
    explained(data, unit),
    el("div", { class: "below-patches" }, histogram(data, unit, at.threshold[unit] ?? null), nextBest(data, unit, at)),
    needing(data, unit),
    el("p", { class: "details" }, facts(data, unit, at).join(" · "), data.map ? " · " : null, data.map ? el("a", { href: href(data.map + String(unit)) }, "on the map") : null),
    notes(data, unit, at),
  ];
  card.replaceChildren(...children.filter((child): child is Node | string => child !== null));
  card.classList.toggle("detector", Boolean(at.detector[unit]));
}
