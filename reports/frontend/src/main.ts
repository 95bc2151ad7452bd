import createScatterplot from "regl-scatterplot";
import { listen, viewOf } from "./files";

listen();
const manifest = window.MICROTOME_MAP?.manifest;
const canvas = document.querySelector<HTMLCanvasElement>("#map-canvas");
const layer = manifest?.layers.at(-1);
if (manifest && canvas && layer) {
  const name = layer.views[0] as string;
  void viewOf(layer.files[name] as string, manifest.samples, layer.boxes[name] ?? [0, 0, 1, 1]).then((view) => {
    const plot = createScatterplot({ canvas });
    return plot.draw({ x: view.x, y: view.y });
  });
}
