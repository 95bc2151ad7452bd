// A box above a table that leaves the rows whose text holds what is typed; the text is kept in the address.

import { copyButtons, type Table } from "./copying";
import { fields, fragment, setFragment, written } from "../place";

export function startFind(signal: AbortSignal): void {
  const form = document.getElementById("find");
  const box = form?.querySelector<HTMLInputElement>("input[type=search]"), count = form?.querySelector("output");
  if (!form || !box || !count) return;
  const rows = [...document.querySelectorAll<HTMLElement>("table.findable tbody tr")];
  const texts = rows.map((row) => (row.textContent ?? "").toLowerCase());
  const what = form.dataset.what ?? "rows";
  const narrow = (): void => {
    const query = box.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !(texts[place] ?? "").includes(query);
      if (!row.hidden) shown += 1;
    });
    count.value = query ? `${shown} of ${rows.length} ${what}` : "";
  };
  const read = (): void => {
    box.value = fields(fragment()).get("q") ?? "";
    narrow();
  };
  box.addEventListener("input", () => {
    setFragment(box.value ? written([["q", box.value]]) : "");
    narrow();
  });
  window.addEventListener("hashchange", read, { signal });
  form.append(copyButtons(() => shownRows(what, rows)));
  form.hidden = false;
  read();
}

// The rows that are shown, as text, under the last row of the table's head.
function shownRows(name: string, rows: HTMLElement[]): Table {
  const texts = (row: Element | null | undefined): string[] => [...(row?.children ?? [])].map((cell) => (cell.textContent ?? "").replace(/\s+/g, " ").trim());
  return { name, columns: texts(rows[0]?.closest("table")?.querySelector("thead tr:last-child")), rows: rows.filter((row) => !row.hidden).map(texts) };
}
