// What the page shows, as the part of its address after #.

export type Colour = "none" | "class" | "cluster" | "concept" | "unit";
const COLOURS: readonly string[] = ["none", "class", "cluster", "concept", "unit"];

// A lasso holds where it was drawn, since the selection stays when the layer changes. Its polygon is x, y, x, y, ...
export type Source =
  | { kind: "lasso"; layer: string; view: string; polygon: number[] }
  | { kind: "cluster"; layer: string; id: number }
  | { kind: "class"; id: number };

export interface State {
  layer: string;
  view: string;
  colour: Colour | "";
  concept: number;
  unit: number;
  names: boolean;
  point: number;
  camera: [number, number, number] | null; // where the middle is, and half the height that is seen
  source: Source | null;
}

export const EMPTY: State = {
  layer: "", view: "", colour: "", concept: -1, unit: -1, names: true, point: -1, camera: null, source: null,
};

export function read(hash: string): State {
  const found = new Map<string, string>();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const cut = part.indexOf("=");
    if (cut > 0) found.set(part.slice(0, cut), decoded(part.slice(cut + 1)));
  }
  const whole = (name: string): number => {
    const text = found.get(name) ?? "";
    return /^\d{1,9}$/.test(text) ? Number(text) : -1;
  };
  const state: State = {
    ...EMPTY,
    layer: found.get("layer") ?? "",
    view: found.get("view") ?? "",
    concept: whole("concept"),
    unit: whole("unit"),
    names: found.get("names") !== "0",
    point: whole("point"),
  };
  const colour = found.get("colour") ?? "";
  if (COLOURS.includes(colour)) state.colour = colour as Colour;
  else if (state.unit >= 0) state.colour = "unit";
  else if (state.concept >= 0) state.colour = "concept";
  const camera = numbers(found.get("at"));
  if (camera.length === 3 && (camera[2] as number) > 0) state.camera = camera as [number, number, number];
  state.source = sourceOf(found, whole, state);
  return state;
}

function sourceOf(found: Map<string, string>, whole: (name: string) => number, state: State): Source | null {
  const layer = found.get("in") ?? state.layer;
  const polygon = numbers(found.get("lasso"));
  if (polygon.length >= 6 && polygon.length % 2 === 0) {
    return { kind: "lasso", layer, view: found.get("inview") ?? state.view, polygon };
  }
  if (whole("cluster") >= 0) return { kind: "cluster", layer, id: whole("cluster") };
  return whole("class") >= 0 ? { kind: "class", id: whole("class") } : null;
}

// `defaults`: what an address need not say.
export function write(state: State, defaults: State): string {
  const parts: string[] = [];
  const add = (name: string, value: string | number): void => {
    parts.push(`${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`);
  };
  const source = state.source;
  const elsewhere = source !== null && source.kind !== "class"
    && (source.layer !== state.layer || (source.kind === "lasso" && source.view !== state.view));
  const told = state.layer !== defaults.layer || elsewhere || state.unit >= 0;
  if (told) add("layer", state.layer);
  if (state.view !== defaults.view || elsewhere) add("view", state.view);
  if (state.colour !== defaults.colour) add("colour", state.colour);
  if (state.concept >= 0 && state.colour === "concept") add("concept", state.concept);
  if (state.unit >= 0 && state.colour === "unit") add("unit", state.unit);
  if (!state.names) add("names", 0);
  if (state.point >= 0) add("point", state.point);
  if (source?.kind === "lasso") add("lasso", source.polygon.join(","));
  else if (source) add(source.kind, source.id);
  if (elsewhere) {
    add("in", source.layer);
    if (source.kind === "lasso") add("inview", source.view);
  }
  if (state.camera) add("at", state.camera.map((value) => Number(value.toPrecision(5))).join(","));
  return parts.length ? `#${parts.join("&")}` : "";
}

function numbers(text: string | undefined): number[] {
  if (!text) return [];
  const values = text.split(",").map(Number);
  return values.every(Number.isFinite) ? values : [];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
