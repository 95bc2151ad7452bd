// A whole report in one file: the pages lie in elements of the document, and the part of the address after # says
// which of them is shown. Pages that have their own script (the map) are left by loading the file anew.

import { contentOf, routed, setPage } from "./place";

const FIRST = "index.html";

export function startRouter(startPage: () => void): void {
  let shown = "";
  const show = (): void => {
    const page = routed(location.hash).page || FIRST;
    if (page === shown) return;
    if (document.body.dataset.page === "map") {
      location.reload();
      return;
    }
    const held = contentOf(page);
    if (!held) {
      document.title = "No such page";
      const main = document.querySelector("main");
      if (main) main.textContent = `This file holds no page ${page}.`;
      return;
    }
    shown = page;
    setPage(page);
    open(page, held.textContent ?? "");
    startPage();
    window.scrollTo(0, 0);
  };
  window.addEventListener("hashchange", show);
  show();
}

// The content of a page takes the place of that of the last one; addresses in it are made to lead into this file.
function open(page: string, html: string): void {
  const found = new DOMParser().parseFromString(html, "text/html");
  const here = new URL(page, "report:/");
  const inside = (address: string): string | null => {
    if (/^(?:[a-z][a-z0-9+.-]*:|#)/i.test(address)) return null;
    const seen = new URL(address, here);
    return seen.pathname.replace(/^\//, "") + seen.hash;
  };
  for (const link of found.querySelectorAll<HTMLAnchorElement>("a[href]")) {
    const address = link.getAttribute("href") ?? "";
    if (address.startsWith("#")) link.setAttribute("href", `#/${page}${address}`);
    else {
      const target = inside(address);
      if (target !== null) link.setAttribute("href", `#/${target}`);
    }
  }
  for (const image of found.querySelectorAll<HTMLImageElement>("img[src]")) {
    const target = inside(image.getAttribute("src") ?? "");
    if (target !== null) image.src = dataAddress(target);
  }
  for (const node of found.querySelectorAll<HTMLElement>("[style*='url(']")) {
    const style = node.getAttribute("style") ?? "";
    node.setAttribute("style", style.replace(/url\(([^)]*)\)/g, (whole, address: string) => {
      const target = inside(address);
      return target === null ? whole : `url(${dataAddress(target)})`;
    }));
  }
  document.title = found.title;
  document.body.className = found.body.className;
  for (const name of Object.keys(document.body.dataset)) delete document.body.dataset[name];
  for (const [name, value] of Object.entries(found.body.dataset)) document.body.dataset[name] = value;
  document.getElementById("page")?.replaceChildren(...[...found.body.children].filter(({ tagName }) => tagName !== "SCRIPT"));
}

function dataAddress(path: string): string {
  const held = contentOf(path);
  return held ? `data:${held.dataset.type ?? ""};base64,${held.textContent ?? ""}` : "data:,";
}
