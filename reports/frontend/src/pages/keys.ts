// Keys: those of a page, those of every page, and a list of them.

import { el } from "../dom";

export interface Key {
  key: string;
  does: string;
  act: () => void;
}

const SHARED: [string, string][] = [["/", "search"], ["?", "these keys"], ["Esc", "close"]];

export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || (target instanceof Element && target.closest("input:not([type=range], [type=checkbox]), select, textarea") !== null);
}

export function listenTo(keys: Key[], signal: AbortSignal): void {
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && event.target instanceof Element && event.target.closest("a, button, summary, input")) return;
    const found = keys.find(({ key }) => key === event.key);
    if (found) {
      event.preventDefault();
      found.act();
    } else if (event.key === "?") showKeys(keys);
  }, { signal });
}

function showKeys(keys: Key[]): void {
  const list = el("dl", { class: "keys-list" });
  for (const [key, does] of [...keys.map(({ key, does }): [string, string] => [key, does]), ...SHARED]) {
    list.append(el("dt", {}, el("kbd", {}, key)), el("dd", {}, does));
  }
  const close = el("button", { type: "button", click: () => dialog.close() }, "close");
  const dialog = el("dialog", { class: "keys-help", "aria-label": "keys" }, el("h2", {}, "Keys"), list, close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

