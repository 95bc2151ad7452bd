"""`microtome visualize`, from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microtome.dissect.cli import main
from microtome.dissect.models import load_model
from microtome.dissect.synthesis.command import default_layer, named_classes, numbered_units
from microtome.dissect.synthesis.writing import class_file_names
from microtome.storage.errors import UsageError

SMALL = ("--steps", "3", "--size", "40")
CNN = "builtin:scenes-cnn"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["visualize", *map(str, arguments)])
    return int(done.value.code or 0)


def told(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "visualize.json").read_text())
    return found


def test_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(CNN, "--layer", "block2", "--unit", "3,8-9", *SMALL, "--out", tmp_path) == 0
    for unit in (3, 8, 9):
        assert np.asarray(Image.open(tmp_path / f"block2.unit-{unit}.png")).shape == (40, 40, 3)
    assert (tmp_path / "sheet.png").is_file()
    found = told(tmp_path)
    assert found["schema_version"] == 1
    assert [each["unit"] for each in found["pictures"]] == [3, 8, 9]  # type: ignore[attr-defined]
    assert all(each["reached"] > each["start"] for each in found["pictures"])  # type: ignore[attr-defined]
    assert "block2.unit-8.png" in capsys.readouterr().out


def test_classes_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--class", "ski slope,3", "--seed", "1,2", "--textbook", *SMALL, "--json", "--out", tmp_path)
    assert run(CNN, *arguments) == 0
    assert (tmp_path / "class-ski slope.seed-2.png").is_file()
    shown = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["seed"]) for each in shown["pictures"]] == [
        *[("ski slope", 1), ("ski slope", 2)],
        *[("farm", 1), ("farm", 2)],
    ]
    assert shown["settings"]["parametrisation"] == "pixels"


def test_one_picture_needs_no_sheet_and_may_begin_with_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (50, 60), (200, 30, 30)).save(tmp_path / "red.png")
    out = tmp_path / "out"
    assert run(CNN, "--class", "beach", "--from", tmp_path / "red.png", *SMALL, "--out", out) == 0
    assert not (out / "sheet.png").exists()
    assert np.asarray(Image.open(out / "class-beach.png")).reshape(-1, 3).mean(0).argmax() == 0


def test_dreams(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (44, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    options = ("--steps", 1, "--octaves", 2, "--tile", 40, "--layer", "block2", "--unit", 5)
    assert run(CNN, "--dream", tmp_path / "photo.png", *options, "--out", out) == 0
    assert np.asarray(Image.open(out / "photo.dream.png")).shape == (44, 60, 3)
    assert told(out)["pictures"][0]["units"] == [5]  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to make an image of"),
        (("--unit", "3"), "of which layer"),
        (("--layer", "block2"), "say what to make an image of"),
        (("--class", "farm", "--layer", "block2"), "--layer goes with"),
        (("--class", "frm"), "did you mean farm"),
        (("--class", "farm", "--octaves", "2"), "--octaves goes with --dream"),
        (("--class", "farm", "--steps", "0"), "steps is 0"),
        (("--class", "farm", "--seed", "x"), "--seed 'x'"),
        (("--class", "farm", "--seed", "1," + "9" * 23), "give a whole number from 0"),
        (("--class", "farm", "--seed", "9" * 5000), "give a whole number from 0"),
        (("--dream", "nowhere.png", "--tv", "1"), "--tv goes without --dream"),
        (("--dream", "nowhere.png"), "is no file"),
        (("--layer", "block2", "--unit", "64"), "units 0 to 63"),
        (("--layer", "block?", "--unit", "1"), "stands for 5 layers"),
        (("--layer", "blok2", "--unit", "1"), "block2"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(CNN, *arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


NETS = """
import torch
from torch import nn

def _net(*parts, names=None):
    torch.manual_seed(0)
    net = nn.Sequential(*parts).eval()
    net.preprocess = {"size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    if names:
        net.class_names = names
    return net

def fixed():
    return _net(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

def named():
    names = ["dup", "other", "dup", "Other", "x" * 200 + "a", "x" * 200 + "b", "alone"]
    return _net(nn.Conv2d(3, 7, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), names=names)
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A file of small networks."""
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--class", "3", "--size", "48"), "does not run on images (B, 3, 48, 48)"),
        (("--class", "dog"), "has no names of classes; give a number from 0 to 9"),
        (("--class", "10"), "there is no class 10"),
    ],
)
def test_what_a_model_without_names_and_of_one_size_does_not_take(
    tmp_path: Path, nets: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(f"{nets}:fixed", *arguments, "--steps", 1, "--out", tmp_path / "out") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_classes_of_one_name_have_files_of_their_own(tmp_path: Path, nets: Path) -> None:
    assert run(f"{nets}:named", "--class", "0,1,2,3,4,5,6", "--steps", 1, "--out", tmp_path / "out") == 0
    files = [each["file"] for each in told(tmp_path / "out")["pictures"]]  # type: ignore[attr-defined]
    long = "x" * 120
    expected = ["dup-0", "other-1", "dup-2", "Other-3", f"{long}-4", f"{long}-5", "alone"]
    assert files == [f"class-{name}.png" for name in expected]
    assert all((tmp_path / "out" / file).is_file() for file in files)
    assert run(f"{nets}:named", "--class", "2", "--steps", 1, "--out", tmp_path / "one") == 0
    assert (tmp_path / "one" / "class-dup-2.png").is_file()


def test_numbers_given_to_shared_names_meet_no_other_name() -> None:
    names = ["a", "A", "a-1", "A-1-2", "e\u0301", "\u00e9", "\u732b" * 60, "b/c"]
    files = class_file_names(names)
    assert len({file.casefold() for file in files}) == len(names)
    assert files[:3] == ["a-0", "A-1", "a-1-2"]
    assert files[6:] == ["\u732b" * 40 + "-6", "b%2Fc"]


def test_ctrl_c_leaves_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from microtome.dissect.synthesis import command

    whole = command.synthesise_units

    def interrupted(*args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        made = whole(*args, **kwargs)  # type: ignore[arg-type]
        yield next(made)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "synthesise_units", interrupted)
    assert run(CNN, "--layer", "block1", "--unit", "1,2,3", *SMALL, "--out", tmp_path) == 130
    assert (tmp_path / "block1.unit-1.png").is_file()
    assert len(told(tmp_path)["pictures"]) == 1  # type: ignore[arg-type]


def test_names_and_numbers() -> None:
    assert numbered_units(["3-5", "1,3"], "x", 10) == [3, 4, 5, 1]
    assert numbered_units(["all"], "x", 3) == [0, 1, 2]
    with pytest.raises(UsageError, match="ranges or all"):
        numbered_units(["three"], "x", 3)
    model = load_model(CNN)
    assert named_classes(["farm,beach", "3"], model) == [3, model.class_names.index("beach")]
    assert default_layer(model) == "block4"
