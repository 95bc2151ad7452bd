// Edits of a generator as its page holds them, and as a recipe has them.
//
// A slider stands at -1 (ablated: value 0, strength 1), 0 (untouched), 1 (inserted: the unit's high value, strength 1), or
// up to 2 (twice that).

export interface Region {
  rows: number;
  columns: number;
  cells: Uint8Array; // 1 inside, row by row
}

export interface UnitEdit {
  unit: number;
  value: number;
  strength: number;
}

export interface Edit {
  layer: string;
  units: UnitEdit[];
  region: Region | null;
  on: boolean;
}

export interface RecipeRegion {
  grid: [number, number];
  runs: number[]; // lengths of runs of cells, row by row, the first outside the region
}

export interface RecipeEdit {
  layer: string;
  units: number[];
  values: number[];
  strength: number;
  region: RecipeRegion | null;
}

export const LEAST = -1;
export const MOST = 2;

export function rounded(number: number): number {
  return Math.round(number * 100) / 100;
}

// What a slider's position makes of a unit whose high value is `top`.
export function placed(unit: number, position: number, top: number): UnitEdit {
  if (position <= 0) return { unit, value: 0, strength: -position };
  return position <= 1 ? { unit, value: top, strength: position } : { unit, value: top * position, strength: 1 };
}

// Where the slider of a unit stands, also of one that comes from somebody's recipe.
export function position(one: UnitEdit, top: number): number {
  if (!one.strength) return 0;
  if (!one.value) return Math.max(-one.strength, LEAST);
  if (one.strength < 1 || !(top > 0)) return Math.min(Math.max(one.strength, 0), MOST);
  return Math.min(Math.max(one.value / top, LEAST), MOST);
}

export function described(one: UnitEdit, top: number): string {
  const at = position(one, top);
  const exact = one.value === 0 || one.value === top || (at > 1 && Math.abs(one.value - top * at) < 1e-9 * Math.abs(top));
  if (!one.strength) return "untouched";
  if (!exact) return `to ${one.value.toPrecision(3)}${one.strength === 1 ? "" : `, ${Math.round(100 * one.strength)}%`}`;
  if (at < 0) return at === -1 ? "ablated" : `ablated ${Math.round(-100 * at)}%`;
  return at === 1 ? "inserted" : `inserted ${Math.round(100 * at)}%`;
}

export function emptyEdit(layer: string): Edit {
  return { layer, units: [], region: null, on: true };
}

function copied(edit: Edit): Edit {
  return { ...edit, units: edit.units.map((one) => ({ ...one })) };
}

function runsOf(cells: Uint8Array): number[] {
  const found: number[] = [];
  let length = 0, inside = 0;
  for (const cell of cells) {
    if (cell !== inside) {
      found.push(length);
      length = 0;
      inside = cell;
    }
    length += 1;
  }
  return [...found, length];
}

// The share of the picture that a region covers, 0 for none.
export function shareOf(region: Region | null): number {
  if (!region) return 0;
  return region.cells.reduce((inside, cell) => inside + cell, 0) / region.cells.length;
}

function regionToJson(region: Region | null): RecipeRegion | null {
  return region && shareOf(region) ? { grid: [region.rows, region.columns], runs: runsOf(region.cells) } : null;
}

function regionFromJson(content: RecipeRegion | null): Region | null {
  if (!content) return null;
  const [rows, columns] = content.grid;
  const cells = new Uint8Array(rows * columns);
  let at = 0;
  content.runs.forEach((length, number) => {
    cells.fill(number % 2, at, at + length);
    at += length;
  });
  return { rows, columns, cells };
}

// Edits as a recipe has them: of each, units of one strength together. One that changes nothing is none.
export function toRecipe(edits: Edit[]): RecipeEdit[] {
  return edits.filter((edit) => edit.on).flatMap((edit) => {
    const region = regionToJson(edit.region), groups = new Map<number, UnitEdit[]>();
    for (const one of edit.units) if (one.strength) groups.set(one.strength, [...(groups.get(one.strength) ?? []), one]);
    return [...groups].map(([strength, units]) => ({
      layer: edit.layer, units: units.map(({ unit }) => unit), values: units.map(({ value }) => value), strength, region,
    }));
  });
}

export function fromRecipe(content: RecipeEdit[]): Edit[] {
  return content.map((edit) => ({
    layer: edit.layer,
    units: edit.units.map((unit, at) => ({ unit, value: edit.values[at] ?? 0, strength: edit.strength })),
    region: regionFromJson(edit.region),
    on: true,
  }));
}

export interface Moment {
  edits: Edit[];
  current: number;
}

const REMEMBERED = 200;

// What was done, to undo it. One gesture (a slider that is dragged, a stroke) is one step: the same `gesture` twice in a
// row is remembered once, until `ended`.
export class History {
  private readonly past: Moment[] = [];
  private last = "";

  remember({ edits, current }: Moment, gesture = ""): void {
    if (gesture && gesture === this.last) return;
    this.last = gesture;
    this.past.push({ edits: edits.map(copied), current });
    if (this.past.length > REMEMBERED) this.past.shift();
  }

  ended(): void {
    this.last = "";
  }

  back(): Moment | null {
    this.last = "";
    return this.past.pop() ?? null;
  }

  get any(): boolean {
    return this.past.length > 0;
  }
}
