// A region of the picture, painted on canvases that lie over it: with pointer, pen or finger, or with the keyboard.

import { contextOf } from "./asking";
import type { Region } from "./edits";

const SIDE = 512;
const FINEST = 128; // cells along the longer side
const ALMOST_ALL = 0.9999;

type Point = [number, number]; // across, down, as shares of the picture

export interface BrushState {
  region: Region | null;
  erase: boolean;
  size: number; // radius as a share of the shorter side
}

const MOVES: Record<string, Point> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function inside(share: number): number {
  return Math.min(Math.max(share, 0), ALMOST_ALL);
}

export class Brush {
  private readonly rows: number;
  private readonly columns: number;
  private cursor: Point | null = null;
  private last: Point | null = null;
  private marked: Region[] | null = null;

  // canvases: over pictures of height x width pixels, all showing the same region. told: it has changed, and whether the
  // stroke has ended. now: the state as it stands.
  constructor(
    private readonly canvases: HTMLCanvasElement[],
    private readonly height: number,
    private readonly width: number,
    private readonly now: () => BrushState,
    private readonly told: (region: Region | null, ended: boolean) => void,
  ) {
    const most = Math.max(height, width), scale = Math.min(1, FINEST / most);
    this.rows = Math.max(1, Math.round(height * scale));
    this.columns = Math.max(1, Math.round(width * scale));
    for (const canvas of canvases) {
      canvas.height = Math.round((SIDE * height) / most);
      canvas.width = Math.round((SIDE * width) / most);
      this.listen(canvas);
    }
  }

  // Regions to hatch, one a canvas.
  mark(regions: Region[] | null): void {
    this.marked = regions;
    this.show();
  }

  show(): void {
    const { region, size } = this.now();
    this.canvases.forEach((canvas, number) => {
      const draw = contextOf(canvas), marked = this.marked?.[number];
      draw.clearRect(0, 0, canvas.width, canvas.height);
      if (region) edges(draw, region);
      if (marked) {
        hatched(draw, marked);
        edges(draw, marked);
      }
      if (!this.cursor) return;
      const radius = Math.max(size * Math.min(canvas.width, canvas.height), 3);
      draw.beginPath();
      draw.arc(this.cursor[0] * canvas.width, this.cursor[1] * canvas.height, radius, 0, 2 * Math.PI);
      lined(draw);
    });
  }

  // The region with a dot painted or erased around a point.
  private dotted(region: Region, [across, down]: Point, radius: number, value: number): Region {
    const { rows, columns } = region, cells = region.cells.slice(), reach = radius * Math.min(this.height, this.width);
    let touched = false;
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const x = ((column + 0.5) / columns - across) * this.width, y = ((row + 0.5) / rows - down) * this.height;
        if (x * x + y * y > reach * reach) continue;
        cells[row * columns + column] = value;
        touched = true;
      }
    }
    const nearest = Math.min(rows - 1, Math.floor(down * rows)) * columns + Math.min(columns - 1, Math.floor(across * columns));
    if (!touched) cells[nearest] = value; // a brush finer than a cell
    return { rows, columns, cells };
  }

  private stroke([across, down]: Point, ended: boolean): void {
    const { region: before, erase, size } = this.now(), from = this.last ?? [across, down];
    let region = before ?? { rows: this.rows, columns: this.columns, cells: new Uint8Array(this.rows * this.columns) };
    const far = Math.hypot(across - from[0], down - from[1]);
    const steps = Math.max(1, Math.ceil(far / Math.max(size / 2, 0.01)));
    for (let step = this.last ? 1 : steps; step <= steps; step += 1) {
      const part = step / steps;
      region = this.dotted(region, [from[0] + part * (across - from[0]), from[1] + part * (down - from[1])], size, erase ? 0 : 1);
    }
    this.last = [across, down];
    this.told(region, ended);
  }

  private listen(canvas: HTMLCanvasElement): void {
    const where = (event: PointerEvent): Point => {
      const box = canvas.getBoundingClientRect();
      return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
    };
    const end = (): void => {
      if (!this.last) return;
      this.last = null;
      this.told(this.now().region, true);
    };
    const gone = (): void => {
      this.cursor = null;
      this.show();
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.cursor = where(event);
      this.stroke(this.cursor, false);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.cursor = where(event);
      if (this.last) this.stroke(this.cursor, false);
      else this.show();
    });
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => { if (!this.last) gone(); });
    canvas.addEventListener("blur", gone);
    canvas.addEventListener("keydown", (event) => { if (this.pressed(event)) event.preventDefault(); });
  }

  // Whether the brush does something by a key.
  private pressed(event: KeyboardEvent): boolean {
    const move = MOVES[event.key], from = this.cursor ?? [0.5, 0.5];
    if (move) {
      const step = event.shiftKey ? 0.1 : 0.025;
      this.cursor = [inside(from[0] + step * move[0]), inside(from[1] + step * move[1])];
      this.show();
      return true;
    }
    if (event.key !== " " && event.key !== "Enter") return false;
    this.cursor = from;
    this.last = null;
    this.stroke(from, true);
    this.last = null;
    return true;
  }
}

// Lines between what is inside and what is not: black under white, so that they show on any picture.
function edges(draw: CanvasRenderingContext2D, { rows, columns, cells }: Region): void {
  const across = draw.canvas.width / columns, down = draw.canvas.height / rows;
  const has = (row: number, column: number): boolean =>
    row >= 0 && row < rows && column >= 0 && column < columns && cells[row * columns + column] === 1;
  const line = (x: number, y: number, toX: number, toY: number): void => {
    draw.moveTo(x, y);
    draw.lineTo(toX, toY);
  };
  draw.beginPath();
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      if (!has(row, column)) continue;
      const left = column * across, top = row * down, right = left + across, bottom = top + down;
      if (!has(row - 1, column)) line(left, top, right, top);
      if (!has(row + 1, column)) line(left, bottom, right, bottom);
      if (!has(row, column - 1)) line(left, top, left, bottom);
      if (!has(row, column + 1)) line(right, top, right, bottom);
    }
  }
  lined(draw);
}

function lined(draw: CanvasRenderingContext2D): void {
  draw.strokeStyle = "#000";
  draw.lineWidth = 5;
  draw.stroke();
  draw.strokeStyle = "#fff";
  draw.lineWidth = 2;
  draw.stroke();
}

function hatched(draw: CanvasRenderingContext2D, { rows, columns, cells }: Region): void {
  const across = draw.canvas.width / columns, down = draw.canvas.height / rows;
  draw.save();
  draw.beginPath();
  cells.forEach((cell, at) => {
    if (cell) draw.rect((at % columns) * across, Math.floor(at / columns) * down, across, down);
  });
  draw.clip();
  draw.beginPath();
  for (let x = -SIDE; x < SIDE; x += 14) {
    draw.moveTo(x, 0);
    draw.lineTo(x + SIDE, SIDE);
  }
  draw.strokeStyle = "rgb(255 255 255 / .45)";
  draw.lineWidth = 2;
  draw.stroke();
  draw.restore();
}
