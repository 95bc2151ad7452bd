// Where the points of each group lie: how far they reach, and where they do.

import type { View } from "./decode";

type Place = [x: number, y: number];

// The middle, and the ends of the group on its four sides.
export interface Extent {
  middle: Place;
  top: Place;
  bottom: Place;
  right: Place;
  left: Place;
}

const REACH = 2.2; // standard deviations that a group reaches at most: beyond them lie single points

// groups: (n,), -1 for none.
export function extents(view: View, groups: Int16Array): Map<number, Extent> {
  const across = spreads(view.x, groups);
  const up = spreads(view.y, groups);
  const [tops, bottoms] = ends(view.y, view.x, groups, up);
  const [rights, lefts] = ends(view.x, view.y, groups, across);
  const found = new Map<number, Extent>();
  across.forEach((x, group) => {
    const y = up[group] as Spread;
    if (!x.count) return;
    found.set(group, {
      middle: [x.mean, y.mean],
      top: [tops[group] ?? x.mean, y.high], bottom: [bottoms[group] ?? x.mean, y.low],
      right: [x.high, rights[group] ?? y.mean], left: [x.low, lefts[group] ?? y.mean],
    });
  });
  return found;
}

interface Spread {
  count: number;
  mean: number;
  deviation: number;
  low: number;
  high: number;
}

function spreads(values: Float32Array, groups: Int16Array): Spread[] {
  const most = groups.reduce((highest, group) => Math.max(highest, group), -1);
  const found = Array.from({ length: most + 1 }, () => ({ count: 0, mean: 0, deviation: 0, low: Infinity, high: -Infinity }));
  const each = (visit: (spread: Spread, value: number) => void): void => {
    for (let i = 0; i < groups.length; i += 1) {
      const spread = found[groups[i] as number];
      if (spread) visit(spread, values[i] as number);
    }
  };
  each((spread, value) => {
    spread.count += 1;
    spread.mean += value;
    spread.low = Math.min(spread.low, value);
    spread.high = Math.max(spread.high, value);
  });
  for (const spread of found) spread.mean /= spread.count || 1;
  each((spread, value) => {
    spread.deviation += (value - spread.mean) ** 2;
  });
  for (const spread of found) {
    spread.deviation = Math.sqrt(spread.deviation / (spread.count || 1));
    spread.low = Math.max(spread.low, spread.mean - REACH * spread.deviation);
    spread.high = Math.min(spread.high, spread.mean + REACH * spread.deviation);
  }
  return found;
}

type Means = (number | null)[];

// The means of `other` over the points of each group that lie a standard deviation or more above its mean, and below.
function ends(values: Float32Array, other: Float32Array, groups: Int16Array, spread: readonly Spread[]): [Means, Means] {
  const sums = [new Float64Array(spread.length), new Float64Array(spread.length)] as const;
  const counts = [new Uint32Array(spread.length), new Uint32Array(spread.length)] as const;
  for (let i = 0; i < groups.length; i += 1) {
    const group = groups[i] as number;
    const own = spread[group];
    if (!own) continue;
    const apart = (values[i] as number) - own.mean;
    if (Math.abs(apart) < own.deviation) continue;
    const side = apart >= 0 ? 0 : 1;
    sums[side][group] = (sums[side][group] as number) + (other[i] as number);
    counts[side][group] = (counts[side][group] as number) + 1;
  }
  const mean = (side: 0 | 1): Means => Array.from(sums[side], (sum, group) => (counts[side][group] ? sum / (counts[side][group] as number) : null));
  return [mean(0), mean(1)];
}
