// What lies over the canvas: names of clusters, the rings around the point that is picked and its neighbours.
// None of it takes the pointer: what is below stays within reach.

import type { Crowd } from "./crowd";
import { byId, el } from "../dom";
import type { Extent } from "./extents";
import type { Scatter } from "./scatter";

export interface Name {
  id: number;
  text: string;
  samples: number;
  extent: Extent;
}

interface Written {
  name: Name;
  node: HTMLElement;
  wide: number;
  tall: number;
}

type Rectangle = [left: number, top: number, right: number, bottom: number];

const MOST_NAMES = 60;
const APART = 7; // pixels between a cluster and its name
const MARGIN = 2; // pixels between names, and between a name and the edge
const LATER = 0.02; // share of a cluster's points that the next side has to spare to be taken

export class Overlay {
  private names: Written[] = [];
  private crowd: Crowd | null = null;
  private rings: { x: number; y: number; node: HTMLElement }[] = [];
  private readonly layers = { names: el("div"), rings: el("div") };
  private readonly tools = byId("map-tools");

  constructor(room: HTMLElement) {
    room.append(this.layers.rings, this.layers.names);
  }

  // The largest first; who comes later gives way. crowd: of all points, which names keep off.
  setNames(names: readonly Name[], crowd: Crowd | null): void {
    const largest = [...names].sort((a, b) => b.samples - a.samples || a.id - b.id).slice(0, MOST_NAMES);
    const nodes = largest.map(({ text }) => el("span", { class: "map-name" }, text));
    this.layers.names.replaceChildren(...nodes);
    const sizes = nodes.map(({ offsetWidth, offsetHeight }) => [offsetWidth, offsetHeight] as const);
    this.names = largest.map((name, at) => {
      const [wide, tall] = sizes[at] as readonly [number, number];
      return { name, node: nodes[at] as HTMLElement, wide, tall };
    });
    for (const node of nodes) node.hidden = true;
    this.crowd = crowd;
  }

  setRings(picked: readonly [number, number] | null, near: readonly (readonly [number, number])[]): void {
    const places = picked ? [...near, picked] : [];
    this.rings = places.map(([x, y]) => ({ x, y, node: el("i", { class: x === picked?.[0] && y === picked[1] ? "map-ring picked" : "map-ring" }) }));
    this.layers.rings.replaceChildren(...this.rings.map(({ node }) => node));
  }

  place(scatter: Scatter): void {
    const { offsetLeft, offsetTop, offsetWidth, offsetHeight } = this.tools;
    const taken: Rectangle[] = [[offsetLeft, offsetTop, offsetLeft + offsetWidth, offsetTop + offsetHeight]];
    for (const { x, y, node } of this.rings) put(node, scatter.toScreen(x, y));
    for (const written of this.names) {
      const found = this.besides(written, scatter, taken);
      written.node.hidden = !found;
      if (!found) continue;
      taken.push(found);
      put(written.node, [(found[0] + found[2]) / 2, (found[1] + found[3]) / 2]);
    }
  }

  // Where a name covers the fewest points beside its cluster; null where there is no room for it.
  private besides({ name, wide, tall }: Written, scatter: Scatter, taken: readonly Rectangle[]): Rectangle | null {
    const { width, height } = scatter.size();
    const on = ([x, y]: [number, number], right: number, down: number): Rectangle => {
      const [across, low] = scatter.toScreen(x, y);
      const middle = [across + right * (APART + wide / 2), low + down * (APART + tall / 2)] as const;
      return [middle[0] - wide / 2, middle[1] - tall / 2, middle[0] + wide / 2, middle[1] + tall / 2];
    };
    const { top, bottom, right, left, middle } = name.extent;
    const ends = [on(top, 0, -1), on(bottom, 0, 1)];
    const sides = [...ends.map((end) => aside(end, width)), on(right, 1, 0), on(left, -1, 0)];
    const seen = sides.filter((side) => fits(side, width, height));
    // Of a cluster that fills the view the name stays in view.
    if (seen.length === 0 && fits(on(middle, 0, 0), width, height)) seen.push(...ends.map((end) => pushedIn(end, width, height)));
    let best: Rectangle | null = null;
    let least = Infinity;
    for (const [rank, side] of seen.entries()) {
      if (taken.some((other) => meet(side, other))) continue;
      const cost = rank * LATER + this.covered(side, scatter) / Math.max(1, name.samples);
      if (cost >= least) continue;
      least = cost;
      best = side;
    }
    return best;
  }

  private covered([left, top, right, bottom]: Rectangle, scatter: Scatter): number {
    return this.crowd?.within(...scatter.toMap(left, bottom), ...scatter.toMap(right, top)) ?? 0;
  }
}

function fits([left, top, right, bottom]: Rectangle, width: number, height: number): boolean {
  return left >= MARGIN && top >= MARGIN && right <= width - MARGIN && bottom <= height - MARGIN;
}

// Back into view from its left or right edge, where its middle is in view.
function aside(name: Rectangle, width: number): Rectangle {
  const middle = (name[0] + name[2]) / 2;
  const by = middle > 0 && middle < width ? inward(name[0], name[2], width) : 0;
  return [name[0] + by, name[1], name[2] + by, name[3]];
}

function pushedIn([left, top, right, bottom]: Rectangle, width: number, height: number): Rectangle {
  const [across, down] = [inward(left, right, width), inward(top, bottom, height)];
  return [left + across, top + down, right + across, bottom + down];
}

function inward(low: number, high: number, most: number): number {
  return Math.max(MARGIN - low, Math.min(0, most - MARGIN - high));
}

function meet(one: Rectangle, other: Rectangle): boolean {
  return one[0] < other[2] + MARGIN && other[0] < one[2] + MARGIN && one[1] < other[3] + MARGIN && other[1] < one[3] + MARGIN;
}

function put(node: HTMLElement, [across, down]: [number, number]): void {
  node.style.transform = `translate(${across.toFixed(1)}px, ${down.toFixed(1)}px) translate(-50%, -50%)`;
}
