"""`microtome explain` on models and options that are not as they should be: one sentence, before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.explaining import write_nets, write_photos
from PIL import Image

from microtome.dissect.attribution.explaining import command, explain_images
from microtome.dissect.attribution.explaining.explainer import NOT_FINITE
from microtome.dissect.attribution.methods import attribute
from microtome.dissect.cli import main
from microtome.dissect.models import load_model
from microtome.storage.errors import UsageError

NETS = """

class Odd(nn.Sequential):
    def forward(self, images):
        features = super().forward(images)
        return self.of(images, features)


def _odd(of, names=()):
    module = _stated(Odd(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), names)
    module.of = of
    return module


def grey():
    return _stated(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def _boom(images, features):
    raise ValueError("boom")


def crashing():
    return _odd(_boom)


def cranes():
    return _odd(lambda images, features: features[:, :3], ("crane", "dog", "crane"))


def several():
    return _odd(lambda images, features: {"features": features, "output": features[:, :3]})


def unclear():
    return _odd(lambda images, features: {"features": features, "other": features[:, :3]})


def sometimes():
    def of(images, features):
        dark = images.detach().mean((1, 2, 3)) < 0
        return features * torch.where(dark, float("nan"), 1.0)[:, None]
    return _odd(of)


class Steep(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


def steep():
    return _odd(lambda images, features: Steep.apply(features))


def never():
    return _odd(lambda images, features: features * float("nan"))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = write_nets(tmp_path)
    path.write_text(path.read_text() + NETS)
    write_photos(tmp_path / "photos", 2)
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)


def explain(*arguments: object, model: str = "nets.py:classifier", images: str = "photos") -> int:
    return run("explain", model, images, "--out", "out", *arguments)


@pytest.mark.parametrize("size", ["0", "-5"])
def test_a_size_without_pixels_is_refused(here: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert explain("--method", "saliency", "--size", size) == 2
    assert f"size is {size}; expected a whole number of pixels above 0" in capsys.readouterr().err
    assert run("inspect", "nets.py:classifier", "--size", size) == 2
    assert f"size is {size}" in capsys.readouterr().err


def test_three_means_are_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--method", "saliency", "--mean", "a,b,c") == 2
    assert "as in --mean 0.485,0.456,0.406" in capsys.readouterr().err


def test_interrupted_it_does_not_promise_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "find_sources", interrupted)
    assert explain("--method", "saliency") == 130
    assert "interrupted; what is finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("grey", "expected input[2, 3, 32, 32]"), ("crashing", "ValueError: boom")])
def test_a_model_that_does_not_run(here: Path, capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    assert explain("--method", "saliency", model=f"nets.py:{name}") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("microtome: ")]
    assert line.startswith(f"microtome: nets.py:{name} does not run on images (2, 3, 32, 32): ")
    assert said in line


def test_of_two_classes_of_one_name_a_number_is_wanted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--method", "saliency", "--target", "crane", model="nets.py:cranes") == 2
    assert "2 classes are called 'crane': 0 (crane), 2 (crane); give the number of one" in capsys.readouterr().err
    assert explain("--method", "saliency", "--target", "2", model="nets.py:cranes") == 0


def test_an_answer_with_several_tensors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--method", "saliency", "--json", model="nets.py:several") == 0
    assert len(json.loads(capsys.readouterr().out)["images"][0]["classes"]) == 3
    assert explain("--method", "saliency", model="nets.py:unclear") == 2
    assert "features (2, 6), other (2, 3): which are the logits?" in capsys.readouterr().err
    assert explain("--method", "saliency", "--layer", "0", "--unit", "2", model="nets.py:unclear") == 0
    assert explain("--method", "activations", "--layer", "0", model="nets.py:unclear") == 0


def test_a_target_by_name_from_python(here: Path) -> None:
    model = load_model("nets.py:classifier")
    images = model.noise(2)
    for method in ("saliency", "gradient-x-input", "occlusion"):
        found = attribute(method, model, images, "boat")
        torch.testing.assert_close(found, attribute(method, model, images, 2))
    with pytest.raises(UsageError, match="no names of classes"):
        attribute("saliency", model.module, images, "boat")
    with pytest.raises(UsageError, match="a target is the number of a class"):
        attribute("saliency", model, images, ["boat", "12"])  # type: ignore[arg-type]


def test_an_answer_that_is_not_finite_is_not_painted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--method", "all", model="nets.py:never") == 2
    said = capsys.readouterr().err
    assert "none of 2 images can be explained" in said
    assert "photo-0.png: the model answers NaN or infinity for this image" in said
    assert not Path("out").exists()


def test_the_other_images_of_a_batch_are_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 40)).save("photos/dark.png")
    Image.new("RGB", (40, 40), (255, 255, 255)).save("photos/light.png")
    (here / "photos/photo-0.png").unlink()
    (here / "photos/photo-1.png").unlink()
    assert explain("--method", "saliency,filters", model="nets.py:sometimes") == 3
    said = capsys.readouterr()
    assert "left out: the model answers NaN or infinity" in said.out
    dark, light = json.loads(Path("out/explain.json").read_text())["images"]
    assert dark == {"image": "photos/dark.png", "error": "the model answers NaN or infinity for this image"}
    assert np.isfinite(np.load("out/light.saliency.npy")).all()
    assert light["methods"]["saliency"]["file"] == "light.saliency.npy"
    assert not Path("out/dark.saliency.npy").exists()


def test_a_result_that_is_not_finite_is_refused(here: Path) -> None:
    explained = list(explain_images(load_model("nets.py:steep"), ["photos"], ["saliency", "occlusion"]))
    assert [each.results["saliency"].refused for each in explained] == [NOT_FINITE] * 2
    assert all(each.results["occlusion"].values is not None for each in explained)


def test_long_names_and_line_ends_keep_the_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos/photo-0.png").rename(here / "photos" / f"{'x' * 200}.png")
    (here / "photos/photo-1.png").rename(here / "photos" / "a\nb.png")
    assert explain("--method", "saliency") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 120


def test_attention_says_its_layer_and_integrated_gradients_how_far_off_they_are(here: Path) -> None:
    methods = ["attention", "rollout", "grad-attention", "integrated-gradients"]
    (found,) = explain_images(load_model("builtin:scenes-vit"), ["photos/photo-0.png"], methods, options={"steps": 1})
    layers = {name: result.layer for name, result in found.results.items()}
    assert layers["attention"] is not None
    assert layers["attention"] == layers["rollout"]
    (again,) = explain_images(
        load_model("builtin:scenes-vit"), ["photos/photo-0.png"], ["attention"], layer=layers["attention"]
    )
    np.testing.assert_array_equal(found.results["attention"].values, again.results["attention"].values)
    assert "off the change in score" in found.results["integrated-gradients"].remark
