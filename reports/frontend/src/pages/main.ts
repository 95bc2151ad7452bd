// The entry: what a page needs is started by the name in <body data-page>.

import { el } from "../dom";
import { startConcept } from "./concept";
import { startFind } from "./find";
import { startLayer } from "./layer";
import { startLayers } from "./layers";
import { listenTo } from "./keys";
import { startAsk } from "./live/ask";
import { offerClasses } from "./live/explain";
import { isSingleFile } from "../place";
import { listen } from "./registry";
import { startSearch } from "./search";
import { startRouter } from "./single";
import { startUnit } from "./unit";

type Start = (signal: AbortSignal) => Promise<void>;

const STARTS: Record<string, Start> = { ask: startAsk, layer: startLayer, unit: startUnit, concept: startConcept, layers: startLayers };

let page: AbortController | null = null;

export function startPage(): void {
  page?.abort();
  page = new AbortController();
  const { signal } = page;
  const start = STARTS[document.body.dataset.page ?? ""];
  startSearch(signal);
  startFind(signal);
  offerClasses();
  if (!start) listenTo([], signal);
  start?.(signal).catch((error: unknown) => {
    document.querySelector("main")?.prepend(el("p", { class: "untrained", role: "alert" }, error instanceof Error ? error.message : String(error)));
  });
}

listen();
if (isSingleFile()) startRouter(startPage);
else startPage();
