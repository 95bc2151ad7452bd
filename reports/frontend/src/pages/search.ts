// Search from every page: concepts, units ("block5 12"), layers, classes and pages, as one types.

import { byId, el } from "../dom";
import { chip, unitAddress } from "./cards";
import type { Listing } from "./data";
import { counted, iou } from "./format";
import { isTyping } from "./keys";
import { go, holds, href } from "../place";
import { load } from "./registry";

const MOST = 12;

export interface Hit {
  text: string;
  address: string;
  rank: number;
  about: string;
  category: number;
}

// How well `name` answers `query`, both in lower case: 0 is best, -1 not at all.
function rankOf(name: string, query: string): number {
  if (name === query) return 0;
  if (name.startsWith(query)) return 1;
  const at = name.indexOf(query);
  if (at < 0) return -1;
  return /[\s/_.:-]/.test(name[at - 1] ?? "") ? 2 : 3;
}

// What answers a text as it stands; else one of its words' singular; else names that are nearly it.
export function find(listing: Listing, text: string): Hit[] {
  const query = text.trim().toLowerCase();
  if (!query) return [];
  const found = hitsOf(listing, (name, more) => rankOf(name, query) >= 0 ? rankOf(name, query) : wordsOf(`${name} ${more}`, query));
  found.push(...unitsOf(listing, query));
  if (!found.length && query.endsWith("s")) found.push(...hitsOf(listing, (name) => rankOf(name, query.slice(0, -1))));
  if (!found.length) found.push(...hitsOf(listing, (name) => nearly(name, query)));
  return found.sort((a, b) => a.rank - b.rank || a.text.length - b.text.length || (a.text < b.text ? -1 : 1)).slice(0, MOST);
}

// 4 where every word of the query is in `text`, else -1.
function wordsOf(text: string, query: string): number {
  const words = query.split(/\s+/);
  return words.every((word) => text.includes(word)) ? 4 : -1;
}

// 5 and more where few letters are to be changed, else -1.
function nearly(name: string, query: string): number {
  if (query.length < 4 || Math.abs(name.length - query.length) > 2) return -1;
  let row = Array.from({ length: query.length + 1 }, (_, place) => place);
  for (let at = 1; at <= name.length; at++) {
    const next = [at];
    for (let place = 1; place <= query.length; place++) {
      const same = name[at - 1] === query[place - 1] ? 0 : 1;
      next.push(Math.min((row[place] ?? 0) + 1, (next[place - 1] ?? 0) + 1, (row[place - 1] ?? 0) + same));
    }
    row = next;
  }
  const changes = row[query.length] ?? 9;
  return changes <= (query.length < 6 ? 1 : 2) ? 5 + changes : -1;
}

function hitsOf(listing: Listing, rank: (name: string, more: string) => number): Hit[] {
  const hits: Hit[] = [];
  const add = (name: string, address: string, weight: number, about: string, category = -1): void => {
    const place = rank(name.toLowerCase(), (category < 0 ? about : listing.categories[category] ?? "").toLowerCase());
    if (place >= 0) hits.push({ text: name, address, rank: place + weight, about, category });
  };
  for (const [id, name, category, images, detectors, best] of listing.concepts) {
    const seen = best ? `best IoU ${iou(best[2])}` : `in ${counted(images, "image")}`;
    add(name, `concept.html#concept=${id}`, detectors ? 0 : 0.5, detectors ? `${counted(detectors, "detector")} · ${seen}` : `no detector · ${seen}`, category);
  }
  for (const layer of listing.layers) add(layer.name, layer.page, 0.2, `layer · ${counted(layer.units, "unit")}, ${counted(layer.detectors, "detector")}`);
  for (const [name, page] of listing.classes) add(name, page, 0.3, "class");
  for (const [name, page] of listing.pages) if (holds(page)) add(name, page, 0.6, "page");
  return hits;
}

// "block5 12", "block5:12", "unit 12", "12"
function unitsOf(listing: Listing, query: string): Hit[] {
  const match = /^(.*?)[\s:/·]*(?:unit)?[\s:]*(\d{1,6})$/.exec(query);
  if (!match) return [];
  const layer = (match[1] ?? "").trim(), unit = Number(match[2]);
  return listing.layers
    .filter((entry) => unit < entry.units && (layer === "" || layer === "unit" || entry.name.toLowerCase().includes(layer)))
    .map((entry) => ({ text: `${entry.name} · unit ${unit}`, address: unitAddress(entry.name, unit), rank: layer && entry.name.toLowerCase() === layer ? 0 : 1.5, about: "unit", category: -1 }));
}

export function startSearch(signal: AbortSignal): void {
  const box = document.getElementById("search") as HTMLInputElement | null;
  if (!box) return;
  const list = byId("search-hits");
  let hits: Hit[] = [];
  let chosen = 0;
  const mark = (): void => {
    [...list.children].forEach((row, place) => row.setAttribute("aria-selected", String(place === chosen)));
    if (hits.length) box.setAttribute("aria-activedescendant", `hit-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
  };
  const show = (listing: Listing): void => {
    hits = find(listing, box.value);
    chosen = 0;
    list.replaceChildren(...hits.map((hit, place) => el(
      "li", { role: "option", id: `hit-${place}` },
      el("a", { href: href(hit.address), tabindex: -1 }, el("b", {}, hit.text), hit.category >= 0 ? chip(listing, hit.category) : null, el("small", {}, hit.about)),
    )));
    if (!hits.length && box.value.trim()) list.replaceChildren(el("li", { class: "none", role: "option", "aria-disabled": "true" }, "nothing of that name in this run"));
    const open = box.value.trim() !== "";
    list.hidden = !open;
    box.setAttribute("aria-expanded", String(open));
    mark();
  };
  const close = (): void => {
    list.hidden = true;
    box.setAttribute("aria-expanded", "false");
  };
  const look = (): void => {
    load<Listing>("index").then(show, () => {
      list.hidden = false;
      list.replaceChildren(el("li", { class: "none" }, "data/index.js is missing beside this page; draw the report again"));
    });
  };
  box.addEventListener("focus", look);
  box.addEventListener("input", look);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      chosen = Math.min(Math.max(chosen + (event.key === "ArrowDown" ? 1 : -1), 0), Math.max(hits.length - 1, 0));
      mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const hit = hits[chosen];
      if (hit) {
        close();
        box.blur();
        go(hit.address);
      }
    } else if (event.key === "Escape") {
      close();
      box.blur();
    }
  });
  list.addEventListener("click", () => close());
  document.addEventListener("pointerdown", (event) => {
    if (event.target instanceof Element && !event.target.closest(".search")) close();
  }, { signal });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || isTyping(event)) return;
    event.preventDefault();
    box.focus();
    box.select();
  }, { signal });
}
