// What the colours mean, below the map.

import { button, el, images, thousands } from "../dom";
import { type Theme, categorical } from "./palette";

const MOST = 24;

export interface Item {
  id: number;
  name: string;
  count: number;
}

// Classes or clusters, the largest first; each leads to its points.
export function items(found: readonly Item[], theme: Theme, choose: (id: number) => void): Node[] {
  const sorted = found.filter(({ count }) => count > 0).sort((a, b) => b.count - a.count || a.id - b.id);
  const nodes: Node[] = sorted.slice(0, MOST).map(({ id, name, count }) =>
    el("span", { class: "map-item" }, swatch(categorical(theme, id)), button(name, () => choose(id)), " ", el("small", {}, thousands(count))));
  if (sorted.length > MOST) nodes.push(el("small", {}, `and ${thousands(sorted.length - MOST)} more; colours repeat`));
  return nodes;
}

export function presence(name: string, lit: number, n: number, theme: Theme): Node[] {
  return [
    el("span", { class: "map-item" }, swatch(theme.present), `${name} `, el("small", {}, images(lit))),
    el("span", { class: "map-item" }, swatch(theme.none), "without ", el("small", {}, images(n - lit))),
  ];
}

export function scale(maximum: number | null | undefined, theme: Theme): Node[] {
  const bar = el("i", { class: "map-scale", role: "img", "aria-label": "from weak to strong" });
  bar.style.background = `linear-gradient(to right, ${theme.none}, ${theme.sequential.join(", ")})`;
  const most = typeof maximum === "number" ? Number(maximum.toPrecision(3)) : null;
  return [el("span", { class: "map-item" }, "0", bar, most === null ? "maximum" : `${most}, its maximum`)];
}

function swatch(colour: string): HTMLElement {
  const node = el("i", { class: "map-swatch" });
  node.style.background = colour;
  return node;
}
