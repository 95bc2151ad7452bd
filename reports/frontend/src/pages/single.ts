// A whole report in one file: the pages lie in elements of the document, and the part of the address after # says
// which of them is shown. Pages that have their own script (the map) are left by loading the file anew.

import { currentPage, fragment, holds, picture, runScript, textOf } from "../place";

export function startRouter(startPage: () => void): void {
  let shown = "";
  const show = (): void => {
    const page = currentPage();
    if (page === shown) {
      reveal();
      return;
    }
    if (document.body.dataset.page === "map") {
      location.reload();
      return;
    }
    const html = textOf(page);
    if (html === null) {
      document.title = "No such page";
      const main = document.querySelector("main");
      if (main) main.textContent = `This file holds no page ${page}.`;
      return;
    }
    shown = page;
    open(page, html);
    startPage();
    window.scrollTo(0, 0);
    reveal();
    if (document.body.dataset.page === "map") void runScript("map/manifest.js").then(() => runScript("static/map.js"));
  };
  window.addEventListener("hashchange", show);
  show();
}

// What the address names on a page without a script of its own: "methods.html#ceiling".
function reveal(): void {
  if (document.body.dataset.page === "layer") return;
  document.getElementById(fragment())?.scrollIntoView();
}

// To a page of this file, or to a file for papers, which is saved.
function lead(link: HTMLAnchorElement, target: string): void {
  if (/\.html(?:#|$)/.test(target)) {
    if (holds(target)) link.setAttribute("href", `#/${target}`);
    else link.remove();
    return;
  }
  link.href = picture(target);
  link.download = target.replace(/^.*\//, "");
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
      if (target !== null) lead(link, target);
    }
  }
  for (const image of found.querySelectorAll<HTMLImageElement>("img[src]")) {
    const target = inside(image.getAttribute("src") ?? "");
    if (target !== null) image.src = picture(target);
  }
  for (const node of found.querySelectorAll<HTMLElement>("[style*='url(']")) {
    const style = node.getAttribute("style") ?? "";
    node.setAttribute("style", style.replace(/url\(([^)]*)\)/g, (whole, address: string) => {
      const target = inside(address);
      return target === null ? whole : `url(${picture(target)})`;
    }));
  }
  document.title = found.title;
  document.body.className = found.body.className;
  for (const name of Object.keys(document.body.dataset)) delete document.body.dataset[name];
  for (const [name, value] of Object.entries(found.body.dataset)) document.body.dataset[name] = value;
  document.getElementById("page")?.replaceChildren(...[...found.body.children].filter(({ tagName }) => tagName !== "SCRIPT"));
}
