"""What is written of explanations: files that hold what they say, a sheet of bounded size, JSON without NaN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microtome.dissect.attribution.explaining import Explained, Guess, Result, explain_images, writing
from microtome.dissect.attribution.explaining.writing import Folder
from microtome.dissect.attribution.methods import METHODS, Method
from microtome.dissect.models import load_model
from microtome.reports.contact import SIDE

SHAPES = {"map": (24, 24), "image": (3, 24, 24), "mask": (24, 24), "maps": (5, 6, 6), "filters": (7, 3, 2, 2)}


def result(method: Method, fill: float | None = None) -> Result:
    shape = SHAPES[method.gives]
    values = np.random.default_rng(0).normal(size=shape) if fill is None else np.full(shape, fill)
    return Result(method, values.astype(np.float32))


def explained(name: str, results: dict[str, Result], *, side: int = 24, probability: float = 0.25) -> Explained:
    guess = Guess(3, "a \x1b[31mname\u202e", 1.5, probability)
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Explained(name, image, (guess,), guess, score=guess.logit, results=results)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_every_kind_of_result(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b", list(METHODS))
    told = folder.add(explained("x", {name: result(method) for name, method in METHODS.items()}), "x")
    whole = folder.finish({"images": [told]})
    assert whole == json.loads((tmp_path / "a/b/explain.json").read_text())
    for name, method in METHODS.items():
        made = told["methods"][name]
        values = np.load(tmp_path / "a/b" / made["file"], allow_pickle=False)
        np.testing.assert_array_equal(values, result(method).values)
        assert made["file"] == ("filters.npy" if name == "filters" else f"x.{name}.npy")
        assert size_of(tmp_path / "a/b" / made["picture"]) == (24, 24) or method.gives in ("maps", "filters")


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["saliency", "grad-cam"])
    results = {"saliency": result(METHODS["saliency"], np.nan), "grad-cam": result(METHODS["grad-cam"], np.inf)}
    told = folder.add(explained("x", results, probability=float("nan")), "x")
    folder.finish({"images": [told]})
    read = json.loads((tmp_path / "explain.json").read_text(), parse_constant=pytest.fail)
    assert read["images"][0]["methods"]["saliency"]["max"] is None
    assert read["images"][0]["classes"][0]["probability"] is None


def test_the_sheet_leaves_out_what_never_applies(tmp_path: Path) -> None:
    saliency, cam = METHODS["saliency"], METHODS["cam"]
    refused, made = Result(cam, None, refused="no linear layer"), result(cam)
    for name, others in (("never", [refused, refused]), ("once", [refused, made])):
        folder = Folder(tmp_path / name, ["saliency", "cam"])
        for number, other in enumerate(others):
            folder.add(explained("x", {"saliency": result(saliency), "cam": other}), f"x{number}")
        folder.finish({})
    never, once = size_of(tmp_path / "never/sheet.png"), size_of(tmp_path / "once/sheet.png")
    assert once[0] - never[0] == SIDE + 10
    assert once[1] >= never[1]


def test_nothing_at_all_is_drawn_with_its_reason(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["cam"])
    folder.add(explained("x", {"cam": Result(METHODS["cam"], None, refused="no linear layer")}), "x")
    assert folder.finish({})["sheet"] == "sheet.png"


def test_only_filters_need_a_sheet_too(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["filters"])
    for number in range(2):
        folder.add(explained("x", {"filters": result(METHODS["filters"])}), f"x{number}")
    folder.finish({})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("explain.json", "filters.npy", "filters.png", "sheet.png", "x0.png", "x1.png")
    ]


def test_the_sheet_has_so_many_rows_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ROWS", 3)
    heights = []
    for count in (3, 5):
        folder = Folder(tmp_path / str(count), ["saliency"])
        for number in range(count):
            folder.add(explained("x", {"saliency": result(METHODS["saliency"])}, side=300), f"x{number}")
        folder.finish({})
        heights.append(size_of(tmp_path / str(count) / "sheet.png")[1])
    assert 0 < heights[1] - heights[0] < 30, "a line that says how many more there are"


def test_heads_one_by_one() -> None:
    model = load_model("builtin:scenes-vit")
    settings = {"options": {"head": "each"}}
    (each,) = explain_images(model, ["scenes:1"], ["attention"], **settings)
    (mean,) = explain_images(model, ["scenes:1"], ["attention"])
    heads, one = each.results["attention"].values, mean.results["attention"].values
    assert heads is not None
    assert one is not None
    assert heads.shape == (4, 112, 112)
    np.testing.assert_allclose(heads.mean(0), one, atol=1e-6)
    assert each.results["attention"].picture(each.image) is not None
