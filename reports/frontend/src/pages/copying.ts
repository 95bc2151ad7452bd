// Tables out of a page: into the clipboard, or into a file where the browser refuses the clipboard.

import { el } from "../dom";

export type Cell = string | number | null;

export interface Table {
  name: string;
  columns: string[];
  rows: Cell[][];
}

export function csv({ columns, rows }: Table): string {
  return [columns, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

// A name that a spreadsheet would run as a formula begins with an apostrophe instead.
function quoted(cell: Cell): string {
  if (cell === null) return "";
  if (typeof cell === "number") return String(cell);
  const text = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function json({ columns, rows }: Table): string {
  return JSON.stringify(rows.map((row) => Object.fromEntries(columns.map((column, place) => [column, row[place] ?? null]))), null, 1);
}

export function download(name: string, content: Blob): void {
  const address = URL.createObjectURL(content);
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function copy(text: string, name: string, kind: string): Promise<string> {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    download(name, new Blob([text], { type: kind }));
    return `saved as ${name}`;
  }
}

// Two buttons that copy what `table` gives when they are pressed.
export function copyButtons(table: () => Table): HTMLElement {
  const said = el("output", { class: "said" });
  const one = (label: string, ending: string, kind: string, text: (table: Table) => string): HTMLElement => el("button", {
    type: "button", class: "plain", click: () => {
      const made = table();
      void copy(text(made), `${made.name}.${ending}`, kind).then((words) => {
        said.textContent = `${made.rows.length} rows ${words}`;
      });
    },
  }, label);
  return el("span", { class: "copy", role: "group", "aria-label": "copy this table" }, one("copy CSV", "csv", "text/csv", csv), one("copy JSON", "json", "application/json", json), said);
}
