// From what a point is to how it is drawn: each point gets a slot, each slot a colour, an opacity and a size.

import { bit } from "./decode";
import type { Theme } from "./palette";

export interface Encoding {
  slots: Uint8Array; // (n,) of the points; slot 0 is drawn below all others
  colours: string[];
  opacities: number[]; // relative to the opacity that suits the number of points
  sizes: number[]; // relative, too
  lit: number; // points that have what the colour stands for
  ranked: boolean; // slots are ranks: the higher, the later drawn; else all but slot 0 are drawn as they come
}

export function plain(n: number, theme: Theme): Encoding {
  return { slots: new Uint8Array(n), colours: [theme.plain], opacities: [1], sizes: [1], lit: 0, ranked: false };
}

// Classes or clusters: a colour for each number, faint for none (a negative number, or one from `count` on).
export function byNumber(numbers: Int16Array | Uint16Array, count: number, theme: Theme): Encoding {
  const slots = new Uint8Array(numbers.length);
  let lit = 0;
  for (let i = 0; i < slots.length; i += 1) {
    const number = numbers[i] as number;
    if (number < 0 || number >= count) continue;
    slots[i] = 1 + (number % theme.categorical.length);
    lit += 1;
  }
  return {
    slots, lit, ranked: false,
    colours: [theme.none, ...theme.categorical],
    opacities: [0.45, ...theme.categorical.map(() => 1)],
    sizes: [0.8, ...theme.categorical.map(() => 1)],
  };
}

export function byPresence(bits: Uint8Array, n: number, theme: Theme): Encoding {
  const slots = new Uint8Array(n);
  let lit = 0;
  for (let i = 0; i < n; i += 1) {
    slots[i] = bit(bits, i);
    lit += slots[i] as number;
  }
  return { slots, lit, ranked: true, colours: [theme.none, theme.present], opacities: [0.35, 1.4], sizes: [0.8, 1.2] };
}

// A unit's levels, 0 to 255; what counts as lit is at least half of the maximum.
export function byLevel(levels: Uint8Array, theme: Theme): Encoding {
  const colours = theme.sequential;
  const slots = new Uint8Array(levels.length);
  let lit = 0;
  for (let i = 0; i < slots.length; i += 1) {
    const level = levels[i] as number;
    if (level > 0) slots[i] = 1 + Math.floor(((level - 1) * colours.length) / 255);
    if (level >= 128) lit += 1;
  }
  const strength = colours.map((_, at) => (at + 1) / colours.length);
  return {
    slots, lit, ranked: true,
    colours: [theme.none, ...colours],
    opacities: [0.3, ...strength.map((share) => 0.6 + 1.0 * share)],
    sizes: [0.75, ...strength.map((share) => 0.8 + 0.6 * share)],
  };
}

// The order in which points are drawn: by rank, so that what stands out is not covered. Stable.
export function drawingOrder({ slots, ranked }: Encoding): Uint32Array {
  const ranks = ranked ? slots : slots.map((slot) => Math.min(slot, 1));
  const starts = new Uint32Array(257);
  for (const rank of ranks) starts[rank + 1] = (starts[rank + 1] as number) + 1;
  for (let rank = 1; rank < 257; rank += 1) starts[rank] = (starts[rank] as number) + (starts[rank - 1] as number);
  const order = new Uint32Array(slots.length);
  for (let i = 0; i < slots.length; i += 1) {
    const rank = ranks[i] as number;
    const place = starts[rank] as number;
    order[place] = i;
    starts[rank] = place + 1;
  }
  return order;
}
