// How many points lie in a rectangle of the map: from counts in a grid, so that it takes the same time for any number.

import type { View } from "./decode";

const CELLS = 512;
const WIDE = CELLS + 1;

export class Crowd {
  // Points to the left of and below each corner of the grid's cells.
  private readonly sums = new Uint32Array(WIDE * WIDE);

  constructor(view: View) {
    const { sums } = this;
    for (let i = 0; i < view.x.length; i += 1) {
      const place = (cell(view.y[i] as number) + 1) * WIDE + cell(view.x[i] as number) + 1;
      sums[place] = (sums[place] as number) + 1;
    }
    for (let row = 1; row < WIDE; row += 1) {
      let inRow = 0;
      for (let at = row * WIDE + 1; at < (row + 1) * WIDE; at += 1) {
        inRow += sums[at] as number;
        sums[at] = inRow + (sums[at - WIDE] as number);
      }
    }
  }

  // About how many lie between two corners; of cells that are cut, as many as their share.
  within(x0: number, y0: number, x1: number, y1: number): number {
    return this.below(x1, y1) - this.below(x0, y1) - this.below(x1, y0) + this.below(x0, y0);
  }

  private below(x: number, y: number): number {
    const [across, up] = [along(x), along(y)];
    const [column, row] = [Math.min(CELLS - 1, Math.floor(across)), Math.min(CELLS - 1, Math.floor(up))];
    const [right, top] = [across - column, up - row];
    const at = row * WIDE + column;
    const low = (this.sums[at] as number) * (1 - right) + (this.sums[at + 1] as number) * right;
    const high = (this.sums[at + WIDE] as number) * (1 - right) + (this.sums[at + WIDE + 1] as number) * right;
    return low * (1 - top) + high * top;
  }
}

// From -1 to 1, in cells.
function along(value: number): number {
  return Math.min(CELLS, Math.max(0, ((value + 1) / 2) * CELLS));
}

function cell(value: number): number {
  return Math.min(CELLS - 1, Math.floor(along(value)));
}
