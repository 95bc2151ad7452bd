// Numbers in words, with no more digits than they are worth.

const NARROW = "\u202f";

export type Number_ = number | null | undefined;

export function iou(value: Number_): string {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

export function short(value: Number_): string {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

export function percent(value: Number_): string {
  return value === null || value === undefined ? "–" : `${Number((100 * value).toPrecision(3))}%`;
}

export function thousands(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, NARROW);
}

export function counted(count: number, one: string, more = `${one}s`): string {
  return `${thousands(count)} ${count === 1 ? one : more}`;
}
