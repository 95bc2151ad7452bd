"""Pictures that explain units and classes, where the run has some: as files of the report, and what pages say of them.

report/explanations/LAYER/123.webp           the image synthesised for unit 123
report/explanations/LAYER/123-patches.webp   what of its first patches it responds to, side by side by rank
report/explanations/classes/7.webp           the image synthesised for class 7 of the model
report/explanations/classes/7-best-0.webp    one of its images beside its Grad-CAM
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from microtome.reports.importance import class_files, readable
from microtome.reports.source import ReportRun

FOLDER = "explanations"
CLASSES = "classes"
KINDS = {
    "typical": ("Typical images", "those whose probability of this class is nearest to the median"),
    "best": ("Surest", "those of the highest probability of this class"),
    "worst": ("Least sure", "those of the lowest probability of this class"),
}
METHODS = {"guided-backprop": "Guided backpropagation", "smoothgrad": "SmoothGrad"}


@dataclass(frozen=True, slots=True)
class Explained:
    """What pages show: of layers by name, of classes by their number among the model's; why: no classes are shown."""

    layers: Mapping[str, dict[str, Any]]
    classes: Mapping[int, dict[str, Any]]
    why: str


def write_explanations(run: ReportRun, building: Path, samples: pd.DataFrame) -> Explained | None:
    """Write the pictures of `run` into `building`; None where it has none."""
    info = run.info.get("explanations")
    if info is None or run.info["stages"].get("explain", {"state": ""})["state"] != "done":
        return None
    keys = samples.set_index("index")["key"].astype(str)
    layers = {}
    for entry in run.info["layers"]:
        if entry["name"] in info["layers"]:
            folder = building / FOLDER / entry["folder"]
            layers[entry["name"]] = {
                **info["layers"][entry["name"]],
                "of": entry["units"],
                "folder": f"{FOLDER}/{quote(entry['folder'])}/",
                "shown": _write_units(run, entry["name"], folder),
            }
    return Explained(layers, _write_classes(run, building / FOLDER / CLASSES, keys), info["why"])


def _write_units(run: ReportRun, layer: str, folder: Path) -> dict[int, tuple[bool, int]]:
    """Of each unit whether it has a synthesised image, and how many of its patches are explained."""
    folder.mkdir(parents=True)
    shown: dict[int, tuple[bool, int]] = {}
    for block in run.picture_blocks(layer):
        for name, picture in block.pictures.items():
            (folder / f"{name}.webp").write_bytes(picture)
        patches = block.about["patches"]
        shown |= {unit: (str(unit) in block.pictures, int(patches[str(unit)])) for unit in block.about["units"]}
    return shown


def _write_classes(run: ReportRun, folder: Path, keys: pd.Series[str]) -> dict[int, dict[str, Any]]:
    folder.mkdir(parents=True)
    found = {}
    for block in run.picture_blocks(None):
        for name, picture in block.pictures.items():
            (folder / f"{name}.webp").write_bytes(picture)
        for about in block.about["classes"]:
            found[int(about["class"])] = _class(about, block.pictures, block.about["no_synthesis"], keys)
    return found


def _class(about: Mapping[str, Any], pictures: Mapping[str, bytes], why: str, keys: pd.Series[str]) -> dict[str, Any]:
    """What the page of a class shows."""
    address = f"{FOLDER}/{CLASSES}/"
    has_image = str(about["class"]) in pictures
    kinds = [
        {"title": KINDS[kind][0], "words": KINDS[kind][1], "images": [_image(address, one, keys) for one in ones]}
        for kind, ones in about["kinds"].items()
        if ones and kind in KINDS
    ]
    return {
        "number": int(about["class"]),
        "name": readable(about["name"]),
        "images": int(about["images"]),
        "picture": f"{address}{about['class']}.webp" if has_image else "",
        "why": "" if has_image else why or "the ascent did not raise its logit",
        "kinds": kinds,
    }


def _image(address: str, one: Mapping[str, Any], keys: pd.Series[str]) -> dict[str, Any]:
    return {
        "picture": f"{address}{quote(one['name'])}.webp",
        "key": str(keys.get(one["sample"], "")),
        "sample": int(one["sample"]),
        "probability": float(one["probability"]),
        "answer": readable(one["answer"]),
        "why": one["why"],
    }


def layer_pictures(layer: Mapping[str, Any]) -> dict[str, Any]:
    """What the data of a layer page have: by unit whether there is an image and how many patches, or null."""
    shown: Mapping[int, tuple[bool, int]] = layer["shown"]
    return {
        "folder": layer["folder"],
        "units": [None if unit not in shown else [int(shown[unit][0]), shown[unit][1]] for unit in range(layer["of"])],
        "method": METHODS.get(layer["method"], layer["method"]),
        "why": layer["why"],
    }


def layer_words(layer: Mapping[str, Any]) -> list[str]:
    """What a layer page says of its pictures, in sentences."""
    if not layer["units"]:
        return [f"No unit of this layer is explained: {layer['why'] or 'none of them responds'}."]
    some = f"{layer['units']:,} of {layer['of']:,} units, {'those' if layer['units'] > 1 else 'that'} of highest IoU"
    which = f"all {layer['of']:,} units" if layer["units"] == layer["of"] else some
    if layer["no_synthesis"]:
        said = [f"No image is synthesised for {which}: {layer['no_synthesis']}."]
    else:
        said = [f"An image is synthesised for {which}: what drives the unit most, found by gradient ascent."]
    if layer["method"]:
        name = METHODS.get(layer["method"], layer["method"])
        said.append(f"{name} shows what of its first patches a unit responds to, grey where nothing.")
    if layer["why"]:
        said.append(f"{layer['why'][0].upper()}{layer['why'][1:]}.")
    return said


@dataclass(frozen=True, slots=True)
class Portraits:
    """The pages of classes of a run without importance: name, file and what is shown of each."""

    classes: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, explained: Explained) -> Portraits:
        """For the classes that have pictures."""
        ordered = [explained.classes[number] for number in sorted(explained.classes)]
        files = class_files([one["name"] for one in ordered])
        return cls(
            [
                {**one, "file": file, "href": f"classes/{quote(file)}.html"}
                for one, file in zip(ordered, files, strict=True)
            ]
        )

    def addresses(self) -> dict[str, str]:
        """The page of each class by its name; of equal names the first."""
        found: dict[str, str] = {}
        for one in self.classes:
            found.setdefault(one["name"], one["href"])
        return found

    def write(self, env: Any, folder: Path, shared: Mapping[str, Any]) -> None:
        """Write `classes.html` and a page for each class."""
        (folder / "classes").mkdir()
        text = env.get_template("portraits.html").render(root="", page="classes.html", **shared, classes=self.classes)
        (folder / "classes.html").write_text(text, encoding="utf-8")
        template = env.get_template("portrait.html")
        for one in self.classes:
            text = template.render(root="../", **shared, explained=one)
            (folder / "classes" / f"{one['file']}.html").write_text(text, encoding="utf-8")


def model_numbers(run: ReportRun) -> dict[tuple[int, int], int]:
    """By layer and number of a class in its importance: its number among the model's classes."""
    found = {}
    for number, entry in enumerate(run.info["layers"]):
        measured = run.info.get("importance", {}).get(entry["name"])
        for place, klass in enumerate(measured["class_indices"] if measured and "class_indices" in measured else []):
            found[(number, place)] = klass
    return found
