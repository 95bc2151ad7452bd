// What lies over the canvas: names of clusters, the rings around the point that is picked and its neighbours.

import { el } from "./dom";
import type { Scatter } from "./scatter";

export interface Name {
  id: number;
  text: string;
  x: number;
  y: number;
  samples: number;
}

const MOST_NAMES = 60;
const LETTER = 7.2;
const LINE = 20;

export class Overlay {
  private names: { name: Name; node: HTMLElement }[] = [];
  private rings: { x: number; y: number; node: HTMLElement }[] = [];
  private readonly layers = { names: el("div"), rings: el("div") };

  constructor(room: HTMLElement, private readonly pick: (id: number) => void) {
    room.append(this.layers.rings, this.layers.names);
  }

  // The largest first; who comes later gives way.
  setNames(names: readonly Name[]): void {
    const largest = [...names].sort((a, b) => b.samples - a.samples || a.id - b.id).slice(0, MOST_NAMES);
    this.names = largest.map((name) => ({
      name,
      node: el("button", { type: "button", tabindex: -1, class: "map-name", click: () => this.pick(name.id) }, name.text),
    }));
    this.layers.names.replaceChildren(...this.names.map(({ node }) => node));
  }

  setRings(picked: readonly [number, number] | null, near: readonly (readonly [number, number])[]): void {
    const places = picked ? [...near, picked] : [];
    this.rings = places.map(([x, y]) => ({ x, y, node: el("i", { class: x === picked?.[0] && y === picked[1] ? "map-ring picked" : "map-ring" }) }));
    this.layers.rings.replaceChildren(...this.rings.map(({ node }) => node));
  }

  place(scatter: Scatter): void {
    const { width, height } = scatter.size();
    for (const { x, y, node } of this.rings) put(node, scatter.toScreen(x, y));
    const taken: [number, number, number][] = [];
    for (const { name, node } of this.names) {
      const [across, down] = scatter.toScreen(name.x, name.y);
      const half = (Math.min(name.text.length, 28) * LETTER) / 2 + 6;
      const seen = across > 0 && across < width && down > LINE && down < height
        && !taken.some(([x, y, other]) => Math.abs(x - across) < half + other && Math.abs(y - down) < LINE);
      node.hidden = !seen;
      if (!seen) continue;
      taken.push([across, down, half]);
      put(node, [across, down]);
    }
  }
}

function put(node: HTMLElement, [across, down]: [number, number]): void {
  node.style.transform = `translate(${across.toFixed(1)}px, ${down.toFixed(1)}px) translate(-50%, -50%)`;
}
