// From the state to colours and their legend.

import type { State } from "./address";
import type { MapData } from "./data";
import { type Encoding, byLevel, byNumber, byPresence, plain } from "./encoding";
import { items, presence, scale } from "./legend";
import type { Concept, Layer } from "./manifest";
import type { Theme } from "./palette";
import { classCounts } from "./statistics";

export interface Coloured {
  encoding: Encoding;
  legend: Node[];
  levels: Uint8Array | null; // of the unit, where the colour is one
}

export class Colouring {
  constructor(
    private readonly data: MapData,
    private readonly doings: { chooseClass: (id: number) => void; chooseCluster: (id: number) => void },
  ) {}

  async of(state: State, layer: Layer, theme: Theme, conceptName: string): Promise<Coloured> {
    const { n, manifest } = this.data;
    if (state.colour === "unit") {
      const levels = await this.data.unit(layer, state.unit);
      return { encoding: byLevel(levels, theme), legend: scale(layer.units?.maxima[state.unit], theme), levels };
    }
    if (state.colour === "concept") {
      const concept = manifest.concepts.find(({ id }) => id === state.concept) as Concept;
      const encoding = byPresence(await this.data.concept(concept), n, theme);
      return { encoding, legend: presence(conceptName, encoding.lit, n, theme), levels: null };
    }
    if (state.colour === "class") {
      const classes = await this.data.classes();
      if (classes) return this.byClass(classes, theme);
    }
    if (state.colour === "cluster") {
      const clusters = await this.data.clusters(layer);
      if (clusters) return this.byCluster(clusters, layer, theme);
    }
    return { encoding: plain(n, theme), legend: [], levels: null };
  }

  private byClass(classes: Uint16Array, theme: Theme): Coloured {
    const names = this.data.manifest.classes;
    const counts = classCounts(classes, names.length);
    const found = names.map((name, id) => ({ id, name, count: counts[id] as number }));
    return { encoding: byNumber(classes, names.length, theme), legend: items(found, theme, this.doings.chooseClass), levels: null };
  }

  private byCluster(clusters: Int16Array, layer: Layer, theme: Theme): Coloured {
    const found = layer.clusters.map(({ id, name, samples }) => ({ id, name: name || `cluster ${id}`, count: samples }));
    return { encoding: byNumber(clusters, 32768, theme), legend: items(found, theme, this.doings.chooseCluster), levels: null };
  }
}
