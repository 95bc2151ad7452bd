// The data files as reports/payload.py and reports/listing.py write them.

export type Maybe = number | null;

// What is said of units at one tau; the last may be that of thresholds of most information, whose tau is null.
export interface Labels {
  tau: Maybe;
  label: number[]; // position in `concepts`, -1 for none
  iou: Maybe[];
  ceiling: Maybe[];
  val: Maybe[] | null;
  detector: number[];
  threshold: Maybe[];
  realised: Maybe[];
  best: number[][];
  bestIou: Maybe[][];
  bestCeiling: Maybe[][];
  information?: Maybe[];
  half?: Maybe[];
}

export interface Patches {
  keys: string[];
  samples: number[];
  size: number;
  units: [number, Maybe, number, number][][]; // position in keys, value, columns and rows of the thumbnail
}

export interface LayerData {
  schema: number;
  layer: string;
  number: number;
  categories: string[];
  categoryStyles: string[];
  concepts: [string, number, number][]; // name, category, id
  states: string[];
  state: number[];
  minimum: Maybe[];
  maximum: Maybe[];
  mean: Maybe[];
  std: Maybe[];
  dead: Maybe[];
  nan: number[];
  positions: number[];
  levels: string;
  histogram: (string | null)[];
  bar: number;
  taus: Labels[];
  patches: Patches;
  strips: string; // "patches/FOLDER/"
  classes?: { names: string[]; pages: string[]; units: [number, number][][] };
  map?: string;
  explained?: { folder: string; method: string; units: Record<string, [boolean | number, number]> };
}

export interface LayerEntry {
  name: string;
  data: string; // its data file, as "layers/block5"
  page: string;
  strips: string;
  units: number;
  detectors: number;
  baseline: boolean;
}

// id, name, category, images, detectors in the network's own layers, [layer, unit, IoU] of its best unit
export type ConceptEntry = [number, string, number, number, number, [number, number, number] | null];

export interface Listing {
  schema: number;
  bar: number;
  tau: number;
  perFile: number; // concepts of a file data/concepts/N.js
  categories: string[];
  categoryStyles: string[];
  layers: LayerEntry[];
  concepts: ConceptEntry[];
  classes: [string, string][]; // name, page
  pages: [string, string][];
}

// [unit, IoU, ceiling, 1 where it is the unit's label, shape of its strip]
export type ConceptUnit = [number, number, number, number, string];

// layer, detectors, units above the bar, the units of highest IoU
export type ConceptLayer = [number, number, number, ConceptUnit[]];

export type ConceptFile = Record<string, ConceptLayer[]>;
