"""Pictures that explain units and classes, planted into a made-up run in the form that stage explain writes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from microtome.storage.pictures import PictureBlock, block_key, write_block
from microtome.storage.run import Run
from microtome.storage.schema import StageInfo


def webp(colour: int, across: int = 1) -> bytes:
    """A plain square, `across` times as wide as high."""
    encoded = io.BytesIO()
    Image.fromarray(np.full((16, 16 * across, 3), colour, np.uint8)).save(encoded, "WEBP")
    return encoded.getvalue()


def plant_pictures(run: Run, layer: str, units: Sequence[int], classes: Sequence[str], why: str = "") -> None:
    """Give `units` of `layer` and `classes`, by their number, pictures; why: why the first choice does not apply."""
    method = "smoothgrad" if why else "guided-backprop"
    pictures = {f"{unit}": webp(unit) for unit in units} | {f"{unit}-patches": webp(unit, 3) for unit in units}
    about: dict[str, Any] = {"units": list(units), "patches": {str(unit): 3 for unit in units}, "no_synthesis": ""}
    about |= {"method": method, "why": why}
    write_block(run.place, block_key(run.layer(layer)["folder"], 0), PictureBlock("key", about, pictures))
    of_classes, said = {}, []
    for number, name in enumerate(classes):
        of_classes |= {f"{number}": webp(9), f"{number}-best-0": webp(9, 2), f"{number}-worst-0": webp(9)}
        best = {"name": f"{number}-best-0", "sample": 1, "probability": 0.97, "answer": "", "why": ""}
        worst = {"name": f"{number}-worst-0", "sample": 2, "probability": 0.01, "answer": classes[-1], "why": "it is 0"}
        kinds = {"typical": [], "best": [best], "worst": [worst]}
        said.append({"class": number, "name": name, "images": 2, "kinds": kinds})
    write_block(run.place, block_key(None, 0), PictureBlock("key", {"classes": said, "no_synthesis": ""}, of_classes))
    run.info["explanations"] = {
        "settings": {"units": len(units), "classes": len(classes)},
        "layers": {layer: {"units": len(units), "method": method, "why": why, "no_synthesis": ""}},
        "classes": len(classes),
        "why": "",
    }
    run.info["stages"]["explain"] = StageInfo(state="done", seconds=1.0)
    run.save()
