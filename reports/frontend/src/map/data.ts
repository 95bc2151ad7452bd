// What the page has read of its files, each read once. Positions and units, of which there are many, are let go again.

import { type View, decodeClasses, decodeClusters, decodeOrder, decodeUnit } from "./decode";
import { bytesOf, viewOf } from "./files";
import type { Concept, Layer, Manifest } from "./manifest";

const VIEWS_KEPT = 8;
const UNITS_KEPT = 32;
const CONCEPT_BYTES = 64e6;

export class MapData {
  readonly n: number;
  private readonly views = new Map<string, Promise<View>>();
  private readonly units = new Map<string, Promise<Uint8Array>>();
  private readonly others = new Map<string, Promise<unknown>>();

  constructor(readonly manifest: Manifest) {
    this.n = manifest.samples;
  }

  layer(name: string): Layer | undefined {
    return this.manifest.layers.find((layer) => layer.name === name);
  }

  positions(layer: Layer, view: string): Promise<View> {
    const file = layer.files[view];
    const box = layer.boxes[view];
    if (!file || !box) return Promise.reject(new Error(`${layer.name} has no view ${view}`));
    return kept(this.views, file, VIEWS_KEPT, () => viewOf(file, this.n, box));
  }

  unit(layer: Layer, unit: number): Promise<Uint8Array> {
    const { units } = layer;
    if (!units) return Promise.reject(new Error(`${layer.name} has no units`));
    const file = units.file.replace("{unit}", String(unit));
    return kept(this.units, file, UNITS_KEPT, async () => decodeUnit(await bytesOf(file), this.n, units.mode));
  }

  classes(): Promise<Uint16Array | null> {
    return this.maybe(this.manifest.class_file, decodeClasses);
  }

  clusters(layer: Layer): Promise<Int16Array | null> {
    return this.maybe(layer.cluster_file, decodeClusters);
  }

  order(): Promise<Uint32Array | null> {
    return this.maybe(this.manifest.order_file, decodeOrder);
  }

  concept(concept: Concept): Promise<Uint8Array> {
    return this.once(concept.file, () => bytesOf(concept.file));
  }

  // The concepts that a selection is compared by: the most frequent ones, as many as memory should hold.
  compared(): Concept[] {
    const most = Math.max(20, Math.floor(CONCEPT_BYTES / Math.max(1, this.n / 8)));
    return [...this.manifest.concepts].sort((a, b) => b.images - a.images || a.id - b.id).slice(0, most);
  }

  private maybe<T>(file: string | null | undefined, decode: (bytes: Uint8Array) => T): Promise<T | null> {
    return file ? this.once(file, async () => decode(await bytesOf(file))) : Promise.resolve(null);
  }

  private once<T>(file: string, make: () => Promise<T>): Promise<T> {
    return kept(this.others, file, Number.POSITIVE_INFINITY, make) as Promise<T>;
  }
}

// What was asked for last is let go last; what failed is asked for again.
function kept<T>(cache: Map<string, Promise<T>>, name: string, most: number, make: () => Promise<T>): Promise<T> {
  const found = cache.get(name) ?? make();
  cache.delete(name);
  cache.set(name, found);
  found.catch(() => cache.delete(name));
  const oldest = cache.keys().next().value;
  if (cache.size > most && oldest !== undefined) cache.delete(oldest);
  return found;
}
