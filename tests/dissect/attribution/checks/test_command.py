"""`microtome explain --check` on a small network and a folder with masks: table, explain.json, check.png, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.dissect.attribution.checks.labelled import read_labelled
from microtome.dissect.attribution.checks.mapping import read_classes
from microtome.dissect.cli import main
from microtome.dissect.models import load_model
from microtome.storage.errors import UnknownNameError, UsageError

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    module.preprocess = {"size": 24, "mean": 0.5, "std": 0.25}
    module.class_names = ("dog, domestic dog", "cat", "red_car", "tree")
    return module.eval()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py and data/: three images with squares, a car in all, a dog in the first."""
    root = tmp_path_factory.mktemp("checked")
    (root / "net.py").write_text(NET)
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(draw.integers(0, 256, (24, 24, 3), np.uint8)).save(root / "data" / "images" / f"{i}.png")
        mask = np.zeros((24, 24), np.uint8)
        mask[2:8, 4:12] = 2
        mask[16:20, 16:20] = 1 if i == 0 else 0
        Image.fromarray(mask).save(root / "data" / "masks" / f"{i}.png")
    (root / "data" / "classes.csv").write_text("index,name,category\n1,dog,object\n2,red car,object\n")
    return root


def explain(place: Path, out: Path, *more: str) -> int:
    arguments = ["explain", f"{place}/net.py:net", f"folder:{place}/data", "--out", str(out), "--device", "cpu", *more]
    try:
        main(arguments)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_the_table_the_figures_and_the_picture(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ("--method", "saliency,grad-cam,filters")
    assert explain(place, tmp_path, *methods, "--check", "--tolerance", "2") == 0
    said = capsys.readouterr().out
    assert "verdict" in said
    assert "(centre outwards)" in said
    told = json.loads((tmp_path / "explain.json").read_text())["check"]
    assert list(told["methods"]) == ["saliency", "grad-cam"]
    assert told["images"] == 3
    assert told["tolerance"] == 2
    assert told["methods"]["saliency"]["pointing"]["images"] == 3
    with Image.open(tmp_path / "check.png") as picture:
        assert picture.width > 500


def test_json_has_the_checks_and_nothing_else_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("concept,class\ndog,0-1\nred car,red_car\n")
    out = tmp_path / "out"
    assert explain(place, out, "--method", "saliency", "--check", "--check-classes", str(table), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["check"]["images"] == 4  # the dog, and three cars
    assert told["check"]["picture"] == "check.png"


def test_what_goes_not_together_is_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    assert explain(place, tmp_path, "--method", "saliency", "--check", "--layer", "0", "--unit", "1") == 2
    assert explain(place, tmp_path, "--method", "saliency", "--check-concepts", "dog") == 2
    assert not list(tmp_path.iterdir())


def test_one_image_is_not_enough(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(place / "data" / "images" / "0.png")
    with pytest.raises(SystemExit) as done:
        main(["explain", f"{place}/net.py:net", image, "--out", str(tmp_path), "--method", "saliency", "--check"])
    assert done.value.code == 2
    assert not list(tmp_path.iterdir())
    assert "--check-data" in capsys.readouterr().err


def test_masks_follow_the_name_of_the_class_or_all_objects(place: Path) -> None:
    model = load_model(f"{place}/net.py:net")
    data = read_labelled(open_dataset(f"folder:{place}/data"), model)
    masks = data.masks(model.class_names, torch.tensor([0, 2, 3]))
    assert masks.sum((1, 2)).tolist() == [16, 48, 48]  # the dog; the car; all there is
    assert data.masks(model.class_names, torch.tensor([3, 0, 0])).sum((1, 2)).tolist() == [64, 48, 48]
    only = read_labelled(open_dataset(f"folder:{place}/data"), model, 2, ["dog"])
    assert only.masks((), torch.tensor([0, 0])).sum((1, 2)).tolist() == [16, 0]
    with pytest.raises(UnknownNameError):
        read_labelled(open_dataset(f"folder:{place}/data"), model, 2, ["doge"])


def test_trials_explain_the_class_of_highest_logit_of_each_object(place: Path) -> None:
    model = load_model(f"{place}/net.py:net")
    data = read_labelled(open_dataset(f"folder:{place}/data"), model)
    trials = data.trials(model, {1: (0, 1), 2: (2,)}, batch=2)
    with torch.no_grad():
        logits = model.module(data.images)
    assert trials.classes.tolist() == [int(logits[0, :2].argmax()), 2, 2, 2]
    assert trials.masks.sum((1, 2)).tolist() == [16, 48, 48, 48]
    torch.testing.assert_close(trials.images[1], data.images[0])
    with pytest.raises(UsageError, match="no class 9"):
        data.trials(model, {1: (9,)})


def test_the_file_of_classes(place: Path, tmp_path: Path) -> None:
    concepts = open_dataset(f"folder:{place}/data").concepts
    names = ("dog", "cat", "red_car", "tree")
    path = tmp_path / "classes.csv"
    path.write_text("concept,class\ndog,0-1\ndog,1\nred car,RED_car\n")
    assert read_classes(path, concepts, names) == {1: (0, 1), 2: (2,)}
    path.write_text("concept,class\ndog,hound\n")
    with pytest.raises(UnknownNameError):
        read_classes(path, concepts, names)
    path.write_text("concept,class\ncow,1\n")
    with pytest.raises(UnknownNameError):
        read_classes(path, concepts, names)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="columns concept and class"):
        read_classes(path, concepts, names)
    with pytest.raises(UsageError, match="cannot be read"):
        read_classes(tmp_path / "nowhere.csv", concepts, names)


def test_the_seed_is_that_of_all_draws(place: Path, tmp_path: Path) -> None:
    told = []
    for seed in ("0", "5"):
        assert explain(place, tmp_path, "--method", "saliency", "--check", "--seed", seed) == 0
        told.append(json.loads((tmp_path / "explain.json").read_text())["check"])
    assert [each["seed"] for each in told] == [0, 5]
    assert told[0]["methods"]["saliency"]["depths"] != told[1]["methods"]["saliency"]["depths"]
    assert explain(place, tmp_path, "--method", "smoothgrad", "--samples", "2", "--check", "--seed", "7") == 0
    assert json.loads((tmp_path / "explain.json").read_text())["check"]["seed"] == 7
    assert explain(place, tmp_path, "--method", "saliency", "--seed", "5") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--check-concepts", "doge"], "no concept named 'doge'"),
        (["--check-classes", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--check-data", "folder:nowhere"], "nowhere"),
        (["--check-images", "2", "--check-data", "scenes:1", "--check-concepts", "doge"], "no concept named 'doge'"),
    ],
)
def test_mistakes_are_said_before_anything_is_explained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    out = tmp_path / "out"
    assert explain(place, out, "--method", "saliency", "--check", *options) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_of_few_images_the_table_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(place, tmp_path, "--method", "saliency", "--check") == 0
    note = "With 3 images the 95 % intervals are too narrow to be believed; give 10 or more."
    assert capsys.readouterr().out.splitlines()[-1] == note
    assert json.loads((tmp_path / "explain.json").read_text())["check"]["notes"] == [note]
