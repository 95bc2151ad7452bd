// Where a page is and where other files are: in a folder of a report, or inside the one file that holds a whole report.
//
// In a folder, the part of the address after # is the page's state. In the single file the part after # begins with
// the page, "#/layers/block5.html#unit-12", and pictures and data come out of elements of the document.

const FIRST_PAGE = "index.html";
const ROUTE = /^#\/([^#]*)(#.*)?$/;

export function isSingleFile(): boolean {
  return document.documentElement.dataset.singleFile !== undefined;
}

// The page that the address names, "" where it names none; and its state, with the # that begins it.
export function routed(hash: string): { page: string; fragment: string } {
  const match = ROUTE.exec(hash);
  return match ? { page: match[1] ?? "", fragment: match[2] ?? "" } : { page: "", fragment: hash };
}

// The page that the single file shows, or is to show.
export function currentPage(): string {
  return routed(location.hash).page || FIRST_PAGE;
}

// The way from this page to the folder of the report, "" or "../".
export function root(): string {
  return isSingleFile() ? "" : document.body.dataset.root ?? "";
}

// The state of this page: what follows #, without it.
export function fragment(): string {
  return routed(location.hash).fragment.replace(/^#/, "");
}

// pushed: whether the back button comes back to the state before.
export function setFragment(text: string, pushed = false): void {
  const route = isSingleFile() ? `#/${currentPage()}${text ? `#${text}` : ""}` : text ? `#${text}` : "";
  const address = route || location.pathname + location.search;
  if (pushed) history.pushState(null, "", address);
  else history.replaceState(history.state, "", address);
}

// Where `address`, seen from the folder of the report, leads to: "layers/block5.html#unit-12".
export function href(address: string): string {
  return isSingleFile() ? `#/${address}` : root() + address;
}

export function go(address: string): void {
  location.assign(href(address));
}

// The address of a picture that lies at `path` in the folder of the report.
export function picture(path: string): string {
  if (!isSingleFile()) return root() + path;
  const held = contentOf(path);
  return held === null ? "data:," : `data:${held.dataset.type ?? ""};base64,${held.textContent ?? ""}`;
}

// The element of the single file that holds the file at `path`, which is percent-encoded as Python's quote does it.
function contentOf(path: string): HTMLElement | null {
  return document.getElementById(`file:${path}`);
}

// Whether there is a page of that address: the single file lacks those that only a server makes useful.
export function holds(page: string): boolean {
  return !isSingleFile() || contentOf(page.replace(/#.*/, "")) !== null;
}

// The text of the file at `path` in the single file, null where it is not there.
export function textOf(path: string): string | null {
  const held = contentOf(path);
  return held === null ? null : (JSON.parse(held.textContent ?? '""') as string);
}

// Run the script at `path`, a data file: its element, or its text in the single file. Resolves when it has run.
export function runScript(path: string): Promise<void> {
  const script = document.createElement("script");
  if (isSingleFile()) {
    const text = textOf(path);
    if (text === null) return Promise.reject(new Error(`${path} is missing in this file`));
    script.textContent = text;
    document.head.append(script);
    script.remove();
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    script.src = root() + path;
    script.onload = () => {
      script.remove();
      resolve();
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${path} is missing beside this page`));
    };
    document.head.append(script);
  });
}

// The part after # as names with values; a part without = is a name with an empty value.
export function fields(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const part of text.split("&")) {
    if (!part) continue;
    const cut = part.indexOf("=");
    found.set(cut < 0 ? part : part.slice(0, cut), cut < 0 ? "" : decoded(part.slice(cut + 1)));
  }
  return found;
}

export function written(values: Iterable<readonly [string, string]>): string {
  return [...values].map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
