"""`microtome explain`: what it writes, prints and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.explaining import write_nets, write_photos
from PIL import Image

from microtome.dissect.attribution import methods
from microtome.dissect.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_nets(tmp_path)
    write_photos(tmp_path / "photos", 3)
    return tmp_path


def call(*arguments: object, model: str = "nets.py:classifier", out: str = "out") -> int:
    with pytest.raises(SystemExit) as end:
        main(["explain", model, *map(str, arguments), "--out", out])
    return int(end.value.code or 0)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def told(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    return found


def test_files_of_every_image_and_method(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("photos", "--method", "grad-cam,guided-backprop", "--method", "filters,grabcut", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == told(here / "out")
    assert said["schema_version"] == 1
    assert said["methods"] == ["grad-cam", "guided-backprop", "filters", "grabcut"]
    assert [image["image"] for image in said["images"]] == [f"photos/photo-{i}.png" for i in range(3)]
    listed = {"explain.json", "sheet.png", "filters.npy", "filters.png"}
    for image in said["images"]:
        stem = image["file"].removesuffix(".png")
        assert size_of(here / "out" / image["file"]) == (32, 32)
        assert len(image["classes"]) == 4
        assert image["target"]["class"] == image["classes"][0]["class"]
        assert image["scores"]["probability"] == pytest.approx(image["classes"][0]["probability"])
        listed.add(image["file"])
        for name, shape in (("grad-cam", [32, 32]), ("guided-backprop", [3, 32, 32]), ("grabcut", [32, 32])):
            made = image["methods"][name]
            listed |= {made["file"], made["picture"]}
            assert (made["file"], made["shape"]) == (f"{stem}.{name}.npy", shape)
            values = np.load(here / "out" / made["file"], allow_pickle=False)
            assert (values.dtype, list(values.shape)) == (np.float32, shape)
            assert (made["min"], made["max"]) == (pytest.approx(values.min()), pytest.approx(values.max()))
            assert min(size_of(here / "out" / made["picture"])) > 0
        assert image["methods"]["grad-cam"]["layer"]
        assert image["methods"]["filters"]["file"] == "filters.npy"
    assert {path.name for path in (here / "out").iterdir()} == listed


def test_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("photos", "--method", "saliency", "--target", "boat", "--limit", "2") == 0
    said = capsys.readouterr()
    header, *lines = said.out.splitlines()
    assert header.split() == ["image", "most", "probable", "explained", "methods"]
    assert len(lines) == 2
    assert all("boat" in line and line.endswith("1 of 1") for line in lines)
    assert "written to out: 2 explanations of 2 images" in said.err


def test_the_same_again_and_what_else_is_there(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("mine")
    (here / "out" / "photo-0.png").write_bytes(b"old")
    options = ("photos", "--method", "smoothgrad,occlusion", "--samples", 2, "--patch", 8, "--stride", 8)
    assert call(*options) == 0
    first = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
    assert first["mine.txt"] == b"mine"
    assert first["photo-0.png"] != b"old"
    assert call(*options, "--batch", 1) == 0
    again = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
    assert again.keys() == first.keys()
    assert call(*options) == 0
    assert {path.name: path.read_bytes() for path in (here / "out").iterdir()} == first


def test_results_within_the_folder_of_images_are_not_explained(here: Path) -> None:
    for _ in range(2):
        assert call("photos", "--method", "saliency", out="photos/explained") == 0
    assert len(told(here / "photos/explained")["images"]) == 3  # type: ignore[arg-type]


def test_the_users_images_are_never_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / "photos/photo-0.png").read_bytes()
    assert call("photos", "--method", "saliency", out="photos") == 2
    assert call("photos/photo-0.png", "--method", "saliency", out="photos/../photos") == 2
    assert "might be replaced" in capsys.readouterr().err
    assert (here / "photos/photo-0.png").read_bytes() == before
    assert len(list((here / "photos").iterdir())) == 3


def test_a_unit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("photos/photo-1.png", "--method", "saliency,activations", "--layer", "3", "--unit", "5")
    assert call(*options, "--at", "2,3", "--json") == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["target"] == {"layer": "3", "unit": 5}
    values = np.load(here / "out" / image["methods"]["activations"]["file"])
    assert values.shape == (1, 16, 16)
    assert image["scores"]["unit"] == pytest.approx(values[0, 2, 3], abs=1e-5)


def test_what_cannot_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "photo-1.png").write_bytes(b"broken")
    (here / "photos" / "empty.jpg").write_bytes(b"")
    assert call("photos", "--method", "saliency") == 3
    said = capsys.readouterr()
    assert "photos/photo-1.png: not an image" in said.err
    assert "photos/empty.jpg: empty file" in said.err
    images = told(here / "out")["images"]
    assert [("error" in image) for image in images] == [True, False, True, False]  # type: ignore[attr-defined]


def test_nothing_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.png").write_bytes(b"broken")
    assert call("broken.png", "--method", "saliency") == 2
    assert "none of 1 images can be explained" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_what_does_not_apply(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "nets.py:smooth"
    assert call("photos", "--method", "guided-backprop", model=model) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("microtome: guided-backprop does not apply: ")
    assert not (here / "out").exists()
    assert call("photos", "--method", "guided-backprop,saliency", model=model) == 2
    assert "guided-backprop does not apply: " in capsys.readouterr().err
    image = told(here / "out")["images"][0]  # type: ignore[index]
    assert "ReLU" in image["methods"]["guided-backprop"]["refused"]
    assert (here / "out" / "photo-0.saliency.npy").exists()
    assert call("photos", "--method", "all", "--samples", 2, "--steps", 4, "--limit", 1, model=model) == 0
    assert "guided-backprop does not apply: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "grad-camm"], "no method named 'grad-camm'; did you mean grad-cam"),
        (["--method", "saliency", "--target", "bot"], "no class named 'bot'; did you mean boat"),
        (["--method", "saliency", "--target", "99"], "there is no class 99"),
        (["--method", "saliency", "--layer", "3"], "none of the methods asked for looks at a layer"),
        (["--method", "grad-cam", "--layer", "nothing"], "no layer named 'nothing'"),
        (["--method", "saliency", "--unit", "3"], "unit 3 of which layer"),
        (["--method", "saliency", "--unit", "3", "--layer", "3", "--target", "1"], "two things to explain"),
        (["--method", "saliency", "--at", "peak"], "give --unit too"),
        (["--method", "saliency", "--unit", "1", "--layer", "3", "--at", "top"], "--at 'top': give peak, mean"),
        (["--method", "saliency", "--patch", "3"], "--patch is an option of occlusion"),
        (["--method", "occlusion", "--patch", "300"], "a window of 300 pixels"),
        (["--method", "attention", "--head", "first"], "--head 'first': give the number"),
        (["--method", "saliency", "--device", "warp"], "--device warp"),
        (["--method", ","], "by which methods"),
    ],
)
def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert call("photos/photo-0.png", *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("microtome: ")]
    assert said in line
    assert not (here / "out").exists()


def test_where_nothing_can_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("photos", "--method", "saliency", out="nets.py") == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert call("photos", "--method", "saliency", out="nets.py/deeper") == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_typo_costs_no_loading(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("photos", "--method", "salincy", model="nets.py:not_there") == 2
    assert "did you mean saliency" in capsys.readouterr().err


def test_odd_names(here: Path) -> None:
    odd = ["a 'b' \"c\".png", "日本.png", "x" * 240 + ".png", "photo-0.JPG.png", "sheet.png", "-rf.png"]
    for name in odd:
        os.link(here / "photos/photo-0.png", here / "photos" / name)
    (here / "photos" / "deep").mkdir()
    os.link(here / "photos/photo-0.png", here / "photos/deep/photo-0.png")
    assert call("photos", "--method", "saliency") == 0
    images = told(here / "out")["images"]
    files = [image["file"] for image in images]  # type: ignore[attr-defined]
    assert len(set(files)) == len(files) == 10
    assert {"deep_photo-0.png.png", "photo-0.png.png", "sheet.png.png", "日本.png"} <= set(files)
    assert all((here / "out" / name).is_file() for name in files)


def test_the_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(methods.METHODS) <= {word.strip(";.") for word in words}
