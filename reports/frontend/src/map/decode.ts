// The data files' contents as arrays; the other side of reports/maps/encode.py, which says what each of them holds.

const STEPS = 65535;

export interface View {
  x: Float32Array;
  y: Float32Array;
}

// Positions of n points between -1 and 1, with the box's sides kept in proportion and its middle at 0.
export function decodeView(bytes: Uint8Array, n: number, box: readonly number[]): View {
  if (bytes.length !== 4 * n) throw new Error(`a view of ${n} points has ${bytes.length} bytes`);
  const [x0 = 0, y0 = 0, x1 = 1, y1 = 1] = box;
  const half = Math.max(x1 - x0, y1 - y0) / 2 || 1;
  return {
    x: axis(bytes.subarray(0, 2 * n), n, (x1 - x0) / 2 / half),
    y: axis(bytes.subarray(2 * n), n, (y1 - y0) / 2 / half),
  };
}

function axis(bytes: Uint8Array, n: number, reach: number): Float32Array {
  const values = new Float32Array(n);
  const scale = (2 * reach) / STEPS;
  let at = 0;
  for (let i = 0; i < n; i += 1) {
    at = (at + (bytes[i] as number) + 256 * (bytes[n + i] as number)) & 0xffff;
    values[i] = at * scale - reach;
  }
  return values;
}

export function decodeOrder(bytes: Uint8Array): Uint32Array {
  const apart = new Uint32Array(aligned(bytes));
  const samples = new Uint32Array(apart.length);
  let at = 0;
  for (let i = 0; i < apart.length; i += 1) {
    const zigzag = apart[i] as number;
    at += (zigzag >>> 1) ^ -(zigzag & 1);
    samples[i] = at;
  }
  return samples;
}

export function decodeClasses(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(aligned(bytes));
}

export function decodeClusters(bytes: Uint8Array): Int16Array {
  return new Int16Array(aligned(bytes));
}

// A unit's level, 0 to 255, at every point; 0 where the file names only the strongest.
export function decodeUnit(bytes: Uint8Array, n: number, mode: "all" | "top"): Uint8Array {
  if (mode === "all") return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(0, true);
  const levels = new Uint8Array(n);
  let at = 0;
  for (let k = 0; k < count; k += 1) {
    at += view.getUint32(4 + 4 * k, true);
    levels[at] = bytes[4 + 4 * count + k] as number;
  }
  return levels;
}

export function bit(bits: Uint8Array, i: number): number {
  return ((bits[i >> 3] as number) >> (i & 7)) & 1;
}

// A buffer of its own, since 16 and 32 bit views need an aligned beginning.
function aligned(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer as ArrayBuffer;
}
