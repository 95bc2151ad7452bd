// What is more frequent in a selection than in the whole map.

export interface Excess {
  id: number;
  count: number; // in the selection
  share: number; // of the selection
  overall: number; // share of all points
  lift: number; // share / overall
}

interface Counted {
  id: number;
  count: number;
  all: number;
}

// Selected points as bits, in the layout of the concepts' files.
export function bitsOf(points: Uint32Array, n: number): Uint8Array {
  const bits = new Uint8Array(Math.ceil(n / 8));
  for (const i of points) bits[i >> 3] = (bits[i >> 3] as number) | (1 << (i & 7));
  return bits;
}

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

export function ones(bits: Uint8Array): number {
  let count = 0;
  for (const byte of bits) count += ONES[byte] as number;
  return count;
}

export function common(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < a.length; i += 1) count += ONES[(a[i] as number) & (b[i] as number)] as number;
  return count;
}

export function classCounts(classes: Uint16Array, count: number, points?: Uint32Array): Float64Array {
  const counts = new Float64Array(count);
  const add = (i: number): void => {
    const at = classes[i] as number;
    if (at < count) counts[at] = (counts[at] as number) + 1;
  };
  if (points) points.forEach(add);
  else classes.forEach((_, i) => add(i));
  return counts;
}

// The most surprising excesses first: by how many standard deviations of a random selection of that size (binomial).
export function excesses(counted: readonly Counted[], selected: number, n: number, most: number): Excess[] {
  const scored = counted
    .filter(({ count, all }) => count > 0 && all > 0 && all < n)
    .map(({ id, count, all }) => {
      const overall = all / n;
      const share = count / selected;
      const surprise = (count - selected * overall) / Math.sqrt(selected * overall * (1 - overall));
      return { id, count, share, overall, lift: share / overall, surprise };
    })
    .filter(({ lift, surprise }) => lift > 1.05 && surprise > 2);
  scored.sort((a, b) => b.surprise - a.surprise || a.id - b.id);
  return scored.slice(0, most).map(({ surprise: _, ...excess }) => excess);
}
