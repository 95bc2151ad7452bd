// The entry: the page's manifest becomes the app. What tests look at is window.MICROTOME_MAP_STATE, which is read only.

import { App } from "./app";
import { byId } from "../dom";
import { listen } from "./files";

const SCHEMA = 1;

function begin(): void {
  const manifest = window.MICROTOME_MAP?.manifest;
  const message = byId("map-message");
  if (!manifest) {
    message.textContent = "The map’s data, map/manifest.js, is missing beside this page.";
    return;
  }
  if (manifest.schema !== SCHEMA || manifest.layers.length === 0) {
    message.textContent = "This page and its data are of different versions; draw the report again.";
    return;
  }
  listen();
  const app = new App(manifest);
  window.MICROTOME_MAP_STATE = Object.freeze({
    get idle() { return app.idle; },
    get drawnAt() { return app.drawnAt; },
    get frames() { return app.scatter?.frames ?? 0; },
    get layer() { return app.state.layer; },
    get view() { return app.state.view; },
    get colour() { return app.state.colour; },
    get lit() { return app.encoding?.lit ?? 0; },
    get selected() { return app.selected?.length ?? 0; },
    get point() { return app.state.point; },
    get near() { return [...app.near]; },
    selection: () => Array.from(app.selected ?? []),
    slot: (point: number) => app.encoding?.slots[point],
    place: (point: number) => app.view && [app.view.x[point], app.view.y[point]],
    screen: (point: number) => app.view && app.scatter?.toScreen(app.view.x[point] as number, app.view.y[point] as number),
  });
  void app.start();
}

begin();
