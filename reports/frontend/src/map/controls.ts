// The row of controls: from the manifest, to and from the state.

import type { Colour, State } from "./address";
import { byId, el, images, thousands } from "../dom";
import { type Concept, type Layer, type Manifest, viewName } from "./manifest";

export type Wish = Partial<Pick<State, "layer" | "view" | "colour" | "concept" | "unit" | "names">>;

export class Controls {
  private readonly form = byId<HTMLFormElement>("map-controls");
  private readonly concepts = new Map<string, number>();
  private readonly labels = new Map<number, string>();

  constructor(private readonly manifest: Manifest, wish: (wish: Wish) => void) {
    this.select("layer").append(...manifest.layers.map(({ name }) => el("option", { value: name }, name)));
    this.nameConcepts(manifest.concepts);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", (event) => {
      const { name } = event.target as HTMLInputElement;
      const made = this.wish(name);
      if (made) wish(made);
    });
  }

  private nameConcepts(concepts: readonly Concept[]): void {
    const times = new Map<string, number>();
    for (const { name } of concepts) times.set(name, (times.get(name) ?? 0) + 1);
    for (const { id, name, category } of concepts) {
      const label = (times.get(name) ?? 0) > 1 ? `${name} (${category})` : name;
      this.concepts.set(label.toLowerCase(), id);
      this.labels.set(id, label);
    }
    byId("map-concepts").append(...[...this.labels.values()].map((label) => el("option", { value: label })));
  }

  private wish(name: string): Wish | null {
    if (name === "layer") return { layer: this.select("layer").value };
    if (name === "view") return { view: this.select("view").value };
    if (name === "colour") return { colour: this.select("colour").value as Colour };
    if (name === "names") return { names: this.input("names").checked };
    if (name === "unit") return { unit: Math.max(0, Math.trunc(Number(this.input("unit").value) || 0)) };
    if (name !== "concept") return null;
    const text = this.input("concept").value.trim().toLowerCase();
    const exact = this.concepts.get(text);
    const inside = text ? [...this.concepts].find(([label]) => label.includes(text))?.[1] : undefined;
    const found = exact ?? inside;
    return found === undefined ? null : { concept: found };
  }

  conceptName(id: number): string {
    return this.labels.get(id) ?? "";
  }

  show(state: State, layer: Layer): void {
    this.select("layer").value = state.layer;
    const view = this.select("view");
    view.replaceChildren(...layer.views.map((name) => el("option", { value: name }, viewName(layer, name))));
    view.value = state.view;
    for (const [name, there] of Object.entries(this.there(layer))) {
      const option = this.select("colour").querySelector<HTMLOptionElement>(`option[value=${name}]`);
      if (option) option.hidden = option.disabled = !there;
    }
    this.select("colour").value = state.colour;
    for (const node of this.form.querySelectorAll<HTMLElement>("[data-shown-for]")) node.hidden = node.dataset["shownFor"] !== state.colour;
    this.input("names").checked = state.names;
    this.input("concept").value = this.conceptName(state.concept);
    this.input("unit").value = state.unit < 0 ? "" : String(state.unit);
    this.input("unit").max = String((layer.units?.count ?? 1) - 1);
    const { samples, total } = this.manifest;
    byId("map-told").textContent = samples < total ? `${thousands(samples)} of ${images(total)}` : images(samples);
  }

  // Which colours this layer can have.
  there(layer: Layer): Record<Exclude<Colour, "none">, boolean> {
    return {
      class: Boolean(this.manifest.class_file),
      cluster: Boolean(layer.cluster_file) && layer.clusters.length > 0,
      concept: this.manifest.concepts.length > 0,
      unit: Boolean(layer.units && layer.units.count > 0),
    };
  }

  private select(name: string): HTMLSelectElement {
    return this.form.elements.namedItem(name) as HTMLSelectElement;
  }

  private input(name: string): HTMLInputElement {
    return this.form.elements.namedItem(name) as HTMLInputElement;
  }
}
