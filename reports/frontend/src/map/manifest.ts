// The manifest of the page, as reports/maps writes it to map/manifest.js.

export type Box = [number, number, number, number];

export interface Quality {
  sample?: number;
  k?: number;
  trustworthiness?: number | null;
  recall?: number | null;
  purity?: number | null;
  purity_features?: number | null;
  warnings?: string[];
}

export interface Cluster {
  id: number;
  name: string;
  x: number;
  y: number;
  samples: number;
}

export interface Units {
  count: number;
  mode: "all" | "top";
  top?: number | null;
  file: string; // "map/FOLDER/units/{unit}.js"
  names: string[];
  maxima: (number | null)[];
}

export interface Disagreement {
  i: number;
  class: number | string;
  neighbors_class: number | string;
  agreement: number;
}

export interface Layer {
  name: string;
  folder: string;
  page: string;
  drawn?: string; // what the first view is called
  views: string[];
  boxes: Record<string, Box>;
  files: Record<string, string>;
  quality?: Quality | null;
  info?: Record<string, unknown> | null;
  clusters: Cluster[];
  cluster_file?: string | null;
  units?: Units | null;
  disagreements: Disagreement[];
  picture?: string | null;
}

export interface Concept {
  id: number;
  name: string;
  category: string;
  images: number;
  file: string;
}

export interface Sprites {
  tile: number;
  columns: number;
  per: number;
  file: string; // "map/sprites/{sheet}.webp"
}

export interface Palette {
  categorical: string[]; // number i has colour i modulo their number
  sequential: string[];
  none: string;
  present: string;
}

export interface Manifest {
  schema: number;
  samples: number;
  total: number;
  layers: Layer[];
  classes: string[];
  class_file?: string | null;
  concepts: Concept[];
  keys: { per: number; file: string };
  order_file: string;
  sprites?: Sprites | null;
  palette?: Palette | null;
}

const VIEW_NAMES: Record<string, string> = { tsne: "t-SNE", pca: "PCA", umap: "UMAP" };

// What a view is called: the first one by what is drawn in it.
export function viewName({ drawn, views }: Layer, view: string): string {
  return (view === views[0] ? drawn : undefined) ?? VIEW_NAMES[view] ?? view;
}

declare global {
  interface Window {
    MICROTOME_MAP?: { manifest: Manifest };
    MICROTOME_MAP_DATA?: (id: string, text: string) => void;
    MICROTOME_MAP_STATE?: unknown;
  }
}
