// Elements from plain values. Whatever comes from the data goes through textContent or setAttribute, never through HTML.

export type Child = Node | string | null;
export type Attributes = Record<string, string | number | boolean | null | ((event: Event) => void)>;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child): child is Node | string => child !== null));
  return node;
}

export function byId<T extends HTMLElement>(id: string): T {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page lacks #${id}`);
  return node as T;
}

export function button(text: string, act: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return el("button", { type: "button", click: act, ...attributes }, text);
}

const NARROW = "\u202f";

export function thousands(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, NARROW);
}

export function images(count: number): string {
  return `${thousands(count)} image${count === 1 ? "" : "s"}`;
}

export function percent(share: number): string {
  const value = 100 * share;
  return `${value >= 99.95 || value < 0.05 ? Math.round(value) : Number(value.toPrecision(value < 10 ? 2 : 3))}%`;
}

export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false && typeof value !== "function") node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child): child is Node | string => child !== null));
  return node;
}
