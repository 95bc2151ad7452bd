"""Images through methods: what comes out is what each method gives for each image, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.explaining import by_hand, load_net, photo, write_photos
from torch import Tensor, nn

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import resize_crop
from microtome.dissect.attribution.explaining import Explained, explain_images, explainer_of
from microtome.dissect.attribution.methods import METHODS, Method, attribute
from microtome.dissect.attribution.subject import class_number
from microtome.dissect.models import Model
from microtome.dissect.models.feeding import prepare
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_net(tmp_path_factory.mktemp("nets"))


def crop(image: object) -> np.ndarray:  # type: ignore[type-arg]
    assert isinstance(image, np.ndarray)
    return resize_crop(image, CropGeometry.of(*image.shape[:2], size=(32, 32), resize=36))


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **settings: object) -> list[int]:
    """A method that refuses images whose brightest value is above 2; how many images each call had."""
    sizes: list[int] = []

    def function(model: Model, images: Tensor, target: Tensor, layer: str | None, **options: object) -> Tensor:
        sizes.append(len(images))
        if bool((images.amax((1, 2, 3)) > 2).any()):
            raise DoesNotApplyError(name, "too bright", "close the curtains")
        return images.mean(1)

    monkeypatch.setattr(Method, "load", lambda self: function)
    return sizes


def test_each_image_gets_what_the_method_gives(model: Model) -> None:
    photos = [photo(i) for i in range(3)]
    names = ["saliency", "grad-cam", "guided-backprop", "cam", "activations", "filters"]
    found = list(explain_images(model, photos, names, batch=2))
    assert [each.name for each in found] == ["image-0", "image-1", "image-2"]
    for given, each in zip(photos, found, strict=True):
        np.testing.assert_array_equal(each.image, crop(given))
        image = by_hand(crop(given))
        with torch.no_grad():
            logits = model.module(image)[0]
        assert each.target is not None
        assert each.target.number == int(logits.argmax())
        assert [guess.number for guess in each.classes] == logits.argsort(descending=True).tolist()
        assert each.score == pytest.approx(float(logits.max()), abs=1e-5)
        assert each.target.probability == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
        for name in names[:-1]:
            result = each.results[name]
            layer = result.layer if METHODS[name].layer else None
            expected = attribute(name, model, image, int(logits.argmax()), layer)[0]
            np.testing.assert_allclose(result.values, expected.numpy(), rtol=1e-5, atol=1e-5)
        weights = each.results["filters"].values
        np.testing.assert_array_equal(weights, model.module[0].weight.detach().numpy())  # type: ignore[index]
        assert each.results["filters"].layer == "0"
        assert each.results["grad-cam"].layer == each.results["activations"].layer is not None
        assert all(result.picture(each.image) is not None for result in each.results.values())


def test_the_batch_changes_nothing(model: Model) -> None:
    photos, names = [photo(i) for i in range(5)], ["saliency", "occlusion", "smoothgrad", "grad-cam++"]
    settings = {"size": 8, "samples": 3}
    one, many = (
        list(explain_images(model, photos, names, batch=batch, options=settings | {"stride": 4})) for batch in (1, 5)
    )
    for a, b in zip(one, many, strict=True):
        for name in names:
            x, y = a.results[name].values, b.results[name].values
            assert x is not None
            assert y is not None
            np.testing.assert_allclose(x, y, atol=1e-5 * float(np.abs(x).max()))


def test_a_unit(model: Model) -> None:
    settings = {"layer": "3", "unit": 2, "at": (4, 5)}
    (found,) = explain_images(model, [photo()], ["saliency", "activations", "filters", "cam", "grad-cam"], **settings)
    image = by_hand(crop(photo()))
    maps = model.module[:4](image).detach()  # type: ignore[index]
    assert found.score == pytest.approx(float(maps[0, 2, 4, 5]), abs=1e-5)
    assert (found.target, found.unit, found.subject) == (None, 2, "unit 2 of 3")
    expected = attribute("saliency", model, image, None, "3", unit=2, at=(4, 5))[0]
    np.testing.assert_allclose(found.results["saliency"].values, expected.numpy(), rtol=1e-5, atol=1e-5)
    shown = found.results["activations"].values
    assert shown is not None
    np.testing.assert_allclose(shown, maps[0, 2:3].numpy(), atol=1e-5)
    assert found.results["cam"].refused
    assert found.results["grad-cam"].layer in {"0", "1", "2"}


def test_the_class_that_is_asked_for(model: Model) -> None:
    for target, number in ((2, 2), ("boat", 2), ("BOAT", 2), ("12", 3), ("red fox", 1), ("0", 0)):
        (found,) = explain_images(model, [photo()], "saliency", target=target)
        assert found.target is not None
        assert found.target.number == number


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("bat", UnknownNameError, "did you mean boat"),
        ("RED FOX", UsageError, "2 classes are called"),
        (4, UsageError, "no class 4"),
        ("17", UsageError, "no class 17"),
        (-1, UsageError, "no class -1"),
    ],
)
def test_no_such_class(model: Model, target: int | str, error: type[UsageError], said: str) -> None:
    with pytest.raises(error, match=said):
        list(explain_images(model, [photo()], "saliency", target=target))


def test_a_model_without_names() -> None:
    assert class_number("7", ()) == 7
    assert class_number("top", ()) is None
    assert class_number("top", ("bottom", "top")) == 1, "a class of that name is meant"
    with pytest.raises(UsageError, match="no names of classes"):
        class_number("boat", ())


def test_what_does_not_apply_is_said(tmp_path: Path) -> None:
    found: list[Explained] = list(explain_images(load_net(tmp_path, "smooth"), [photo(0), photo(1)], "all"))
    for each in found:
        refused = {name for name, result in each.results.items() if result.values is None}
        assert {"deconvnet", "guided-backprop", "attention", "rollout", "grad-attention"} <= refused
        assert {"saliency", "occlusion", "activations", "filters", "cam"}.isdisjoint(refused)
        assert "ReLU" in each.results["guided-backprop"].refused


def test_a_deconvnet_that_does_not_see_the_image_is_remarked(tmp_path: Path, model: Model) -> None:
    (seen,) = explain_images(model, [photo(0)], ["deconvnet"])
    assert seen.results["deconvnet"].remark == ""
    strided = load_net(tmp_path, "strided")
    first, second = explain_images(strided, [photo(0), photo(1)], ["deconvnet", "saliency"], target=0)
    assert "same for every image" in first.results["deconvnet"].remark
    np.testing.assert_allclose(first.results["deconvnet"].values, second.results["deconvnet"].values, atol=1e-5)
    assert first.results["saliency"].remark == ""


def test_a_model_that_is_no_classifier(tmp_path: Path) -> None:
    maps = load_net(tmp_path, "maps")
    (found,) = explain_images(maps, [photo()], "all")
    made = {name for name, result in found.results.items() if result.values is not None}
    assert made == {"filters"}
    assert found.classes == ()
    assert "no classes" in found.results["saliency"].refused
    (unit,) = explain_images(maps, [photo()], ["saliency", "occlusion"], layer="2", unit=1)
    assert all(result.values is not None for result in unit.results.values())
    with pytest.raises(UsageError, match="classifier"):
        list(explain_images(maps, [photo()], ["saliency"], target=1))


def test_an_image_is_refused_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = fake(monkeypatch, "grad-cam")
    photos = [photo(0) // 8, np.full((40, 40, 3), 255, np.uint8), photo(2) // 8]
    explainer = explainer_of(model, ["grad-cam"], layer="3", target=0, batch=3)
    from microtome.dissect.attribution.explaining.sources import find_sources

    found = list(explainer.explain(find_sources(photos)))
    assert [each.results["grad-cam"].refused for each in found] == ["", "too bright; close the curtains", ""]
    assert sizes == [3, 1, 1, 1]


def test_a_model_that_a_method_does_not_apply_to_is_asked_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = fake(monkeypatch, "deconvnet")
    photos = [np.full((40, 40, 3), 255, np.uint8)] * 5
    found = list(explain_images(model, photos, ["deconvnet"], batch=2))
    assert [each.results["deconvnet"].refused for each in found] == ["too bright; close the curtains"] * 5
    assert sizes == [2]


def test_what_cannot_be_read_comes_in_its_place(model: Model, tmp_path: Path) -> None:
    write_photos(tmp_path, 3)
    (tmp_path / "photo-1.png").write_bytes(b"no")
    told: list[int] = []
    from microtome.dissect.attribution.explaining.sources import find_sources

    found = list(explainer_of(model, "saliency", batch=2).explain(find_sources([tmp_path]), told.append))
    assert [bool(each.error) for each in found] == [False, True, False]
    assert sum(told) == 3
    assert found[1].image.size == 0


@pytest.mark.parametrize(
    ("methods", "settings", "said"),
    [
        ("salency", {}, "did you mean saliency"),
        ([], {}, "by which methods"),
        ("saliency", {"unit": 3}, "of which layer"),
        ("saliency", {"unit": 3, "layer": "3", "target": 1}, "two things"),
        ("saliency", {"layer": "3"}, "none of the methods"),
        ("grad-cam", {"layer": "33"}, "no layer named '33'"),
        ("grad-cam", {"layer": "[03]"}, "give the name of one"),
        ("saliency", {"options": {"steps": 3}}, "steps is an option of integrated-gradients"),
        ("saliency", {"options": {"nonsense": 3}}, "an option of no method"),
        ("saliency", {"batch": 0}, "at least 1"),
        ("saliency", {"layer": "3", "unit": 99}, "no unit 99"),
        ("saliency", {"layer": "3", "unit": 1, "at": (99, 0)}, "no position"),
    ],
)
def test_what_does_not_fit_is_refused(model: Model, methods: object, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        list(explain_images(model, [photo()], methods, **settings))  # type: ignore[arg-type]


def test_a_bare_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (found,) = explain_images(net, [photo()], ["saliency"])
    assert found.image.shape == (224, 224, 3)
    assert found.results["saliency"].values is not None


def test_preparing_is_what_an_audit_does(model: Model) -> None:
    np.testing.assert_array_equal(prepare(photo(), model.preprocess), crop(photo()))
