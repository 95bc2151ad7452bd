// Points found by place. Plain passes over all of them: a million take a few milliseconds, and no index has to be built.

import type { View } from "./decode";

const CORNERS = 64;

// The point nearest to (x, y), -1 where none lies within `reach`.
export function nearestWithin(view: View, x: number, y: number, reach: number): number {
  let best = -1;
  let least = reach * reach;
  for (let i = 0; i < view.x.length; i += 1) {
    const dx = (view.x[i] as number) - x;
    if (dx > reach || dx < -reach) continue;
    const dy = (view.y[i] as number) - y;
    const apart = dx * dx + dy * dy;
    if (apart < least) {
      least = apart;
      best = i;
    }
  }
  return best;
}

// The `count` points nearest to point `from`, nearest first, ties by number; without itself.
export function nearestTo(view: View, from: number, count: number): number[] {
  const x = view.x[from] as number;
  const y = view.y[from] as number;
  const found: number[] = [];
  const apart: number[] = [];
  for (let i = 0; i < view.x.length; i += 1) {
    const dx = (view.x[i] as number) - x;
    const dy = (view.y[i] as number) - y;
    const distance = dx * dx + dy * dy;
    if (i === from || (found.length === count && distance >= (apart[count - 1] as number))) continue;
    let place = found.length;
    while (place > 0 && (apart[place - 1] as number) > distance) place -= 1;
    found.splice(place, 0, i);
    apart.splice(place, 0, distance);
    if (found.length > count) {
      found.pop();
      apart.pop();
    }
  }
  return found;
}

// A lasso as an address holds it: at most 64 corners, five decimals, x, y, x, y, ...
export function polygonOf(corners: readonly (readonly number[])[]): number[] {
  const step = Math.max(1, corners.length / CORNERS);
  const polygon: number[] = [];
  for (let at = 0; Math.floor(at) < corners.length; at += step) {
    const [x = 0, y = 0] = corners[Math.floor(at)] as readonly number[];
    polygon.push(Number(x.toFixed(5)), Number(y.toFixed(5)));
  }
  return polygon;
}

// The points inside a polygon (even-odd rule), ascending.
export function inside(view: View, polygon: readonly number[]): Uint32Array {
  const xs = polygon.filter((_, at) => at % 2 === 0);
  const ys = polygon.filter((_, at) => at % 2 === 1);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let i = 0; i < view.x.length; i += 1) {
    const x = view.x[i] as number;
    const y = view.y[i] as number;
    if (x < left || x > right || y < low || y > high) continue;
    if (within(xs, ys, x, y)) found.push(i);
  }
  return Uint32Array.from(found);
}

function within(xs: readonly number[], ys: readonly number[], x: number, y: number): boolean {
  let odd = false;
  for (let a = 0, b = xs.length - 1; a < xs.length; b = a, a += 1) {
    const ya = ys[a] as number;
    const yb = ys[b] as number;
    if (ya > y !== yb > y) {
      const cross = (xs[a] as number) + ((y - ya) / (yb - ya)) * ((xs[b] as number) - (xs[a] as number));
      if (x < cross) odd = !odd;
    }
  }
  return odd;
}

export function where<T extends Int16Array | Uint16Array>(values: T, wanted: number): Uint32Array {
  const found: number[] = [];
  for (let i = 0; i < values.length; i += 1) if (values[i] === wanted) found.push(i);
  return Uint32Array.from(found);
}
