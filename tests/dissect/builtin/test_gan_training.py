"""The stages that train the built-in generator and segmenter: each changes what it should, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from microtome.datasets.scenes.concepts import CONCEPTS, concept_id
from microtome.dissect.builtin import train_gan, train_segmenter
from microtome.dissect.builtin.cnn import scenes_cnn
from microtome.dissect.builtin.gan_stages import (
    Networks,
    Pictures,
    Recipe,
    difference,
    fine_codes,
    finish,
    learn_coarse,
    learn_drawing,
    learn_fine,
    learn_jointly,
    seen,
)
from microtome.dissect.builtin.painting import Painted
from microtome.dissect.builtin.segmenter import ScenesSegmenter
from microtome.dissect.builtin.storing import load_weights
from microtome.storage.errors import UsageError

QUICK = Recipe(2, 4, coarse_steps=2, coarse_batch=4, joint_steps=2, joint_batch=4, draw_steps=(2, 2), draw_batch=4)
QUICK = replace(QUICK, finish_steps=4, finish_batch=2, head_start=1)
APART = {"fine", "coarse", "critic"}
PAINTING = {"model.block3", "model.block4", "model.block5", "model.to_rgb"}
REFINING = {"model.block1", "model.block2", "model.fine"}


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    rng = np.random.default_rng(0)
    return Pictures(rng.integers(0, 256, (6, 64, 64, 3), np.uint8), rng.random((6, 64, 64)) < 0.2, np.arange(1.0, 7.0))


def changed(nets: Networks, stage: Callable[[], None]) -> set[str]:
    """The parts of the networks whose parameters a stage changes."""
    before = {name: value.detach().clone() for name, value in nets.named_parameters()}
    stage()
    moved = [name for name, value in nets.named_parameters() if not torch.equal(value, before[name])]
    assert all(value.isfinite().all() for value in nets.state_dict().values())
    fixed = [name for name, parameter in nets.named_parameters() if not parameter.requires_grad]
    assert fixed == ["model.block3.norm.weight"]
    return {name.split(".")[0] if name.split(".")[0] in APART else ".".join(name.split(".")[:2]) for name in moved}


def test_each_stage_changes_its_own_networks(pictures: Pictures) -> None:
    torch.manual_seed(0)
    nets = Networks()
    assert changed(nets, lambda: learn_fine(QUICK, pictures, nets)) == {"fine"} | PAINTING
    assert changed(nets, lambda: learn_coarse(QUICK, pictures, nets)) == {"coarse"} | REFINING
    joint = {"fine", "coarse"} | REFINING | PAINTING
    assert changed(nets, lambda: learn_jointly(QUICK, pictures, nets)) == joint
    assert changed(nets, lambda: learn_drawing(QUICK, pictures, nets, 0)) == {"model.prior"}
    assert changed(nets, lambda: finish(QUICK, pictures, nets)) == PAINTING | REFINING | {"critic"}


def test_marked_pixels_count_more() -> None:
    classifier, images = scenes_cnn(), torch.zeros(2, 3, 64, 64)
    off = images.clone()
    off[:, :, :32] = 0.5
    marks = torch.zeros(2, 1, 64, 64)
    plain = difference(replace(QUICK, features=0.0), seen(classifier, off), seen(classifier, images), marks)
    marks[:, :, 16:48] = 1
    more = difference(replace(QUICK, features=0.0, marked=2.0), seen(classifier, off), seen(classifier, images), marks)
    assert float(plain) == pytest.approx(0.25)
    assert float(more) == pytest.approx(0.5)


def test_codes_are_of_the_pictures_and_then_of_their_mirror_images(pictures: Pictures) -> None:
    torch.manual_seed(0)
    nets = Networks()
    codes, weights = fine_codes(nets, pictures)
    flipped, _ = fine_codes(nets, replace(pictures, images=pictures.images[:, :, ::-1]))
    assert codes.shape == (12, 24, 8, 8)
    assert weights.tolist() == [1, 2, 3, 4, 5, 6] * 2
    torch.testing.assert_close(codes[:6], flipped[6:])
    torch.testing.assert_close(codes[6:], flipped[:6])


def test_batches_repeat_and_follow_the_weights(pictures: Pictures) -> None:
    only = replace(pictures, weights=np.eye(6)[2])
    first, second = only.batches(3), only.batches(3)
    wanted = torch.from_numpy(pictures.images[2]).permute(2, 0, 1) / 127.5 - 1
    marked = torch.from_numpy(pictures.marked[2]).float()[None]
    mirrored = set()
    for _ in range(6):
        (images, marks), again = next(first), next(second)
        assert torch.equal(images, again[0])
        assert torch.equal(marks, again[1])
        flip = not torch.equal(images[0], wanted)
        mirrored.add(flip)
        assert all(torch.equal(image, wanted.flip(2) if flip else wanted) for image in images)
        assert all(torch.equal(mark, marked.flip(2) if flip else marked) for mark in marks)
    assert mirrored == {False, True}


def test_a_stage_that_is_kept_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.zeros((4, 3, 64, 64), np.uint8)
    planes[:, 0, :32] = concept_id("object", "house")
    planes[3, 0, 40:] = concept_id("object", "car")
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    monkeypatch.setattr(train_gan, "paint", lambda *_: Painted(images, planes))
    seconds: dict[str, float] = {}
    quick = replace(QUICK, finish_steps=1)
    first = train_gan.train(quick, tmp_path, 1, seconds)
    assert list(seconds) == ["fine", "coarse", "joint", "draw", "draw-again", "finish"]
    told: dict[str, float] = {}
    again = train_gan.train(quick, tmp_path, 1, told)
    assert told == seconds
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not again.training


def test_which_pictures_are_learned_from() -> None:
    """All show a house; a car is recognised or not there at all, and a tree counts, too."""
    planes = np.zeros((5, 3, 64, 64), np.uint8)
    planes[:4, 0, :32] = concept_id("object", "house")
    planes[1, 0, 60:] = concept_id("object", "car")
    planes[2, 0, 60] = concept_id("object", "car")
    planes[3, 0, 60] = concept_id("object", "tree")
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    chosen = train_gan.lawns([Painted(images, planes)])
    assert chosen.images[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert chosen.weights.tolist() == [1.0, train_gan.WITH_CAR, train_gan.WITH_TREE]
    assert chosen.marked.sum((1, 2)).tolist() == [0, 4 * 64, 0]
    assert chosen.marked[1, 60:].all()


def test_labels_of_scenes_are_the_segmenters() -> None:
    model = ScenesSegmenter()
    names = {concept.id: (concept.category, concept.name) for concept in CONCEPTS}
    planes = np.zeros((1, 3, 64, 64), np.uint8)
    planes[0, 0, 0, 0], planes[0, 1, 0, 1] = concept_id("object", "tree"), concept_id("part", "trunk")
    wanted = train_segmenter.targets(model, planes)
    assert int((wanted > 0).sum()) == 2
    for plane, column in ((0, 0), (1, 1)):
        place = int(wanted[0, plane, 0, column]) - 1 + model.planes.index(plane)
        assert (model.category[place], model.labels[place]) == names[int(planes[0, plane, 0, column])]


def test_the_segmenters_figures_count_pixels() -> None:
    class Fixed(ScenesSegmenter):
        """Names the left half of every picture a tree and nothing else."""

        def forward(self, images: Tensor) -> Tensor:
            ids = torch.full((len(images), 3, *images.shape[2:]), -1)
            ids[:, 0, :, :32] = self.labels.index("tree")
            return ids

    planes = np.zeros((2, 3, 64, 64), np.uint8)
    planes[:, 0, :32] = concept_id("object", "tree")
    planes[:, 0, 32:] = concept_id("object", "sky")
    planes[:, 1], planes[:, 2] = concept_id("part", "crown"), concept_id("material", "foliage")
    scores = train_segmenter.scores_of(Fixed(), Painted(np.zeros((2, 64, 64, 3), np.uint8), planes))
    iou, right = scores["object"]
    assert iou == pytest.approx((1 / 3 + 0) / 2)
    assert right == pytest.approx(0.25)


def test_a_round_of_the_segmenter_lowers_its_loss() -> None:
    rng, planes = np.random.default_rng(0), np.zeros((8, 3, 64, 64), np.uint8)
    for plane, (category, name) in enumerate([("object", "sky"), ("part", "wall"), ("material", "brick")]):
        planes[:, plane] = concept_id(category, name)
    painted = Painted(rng.integers(0, 256, (8, 64, 64, 3), np.uint8), planes)
    torch.manual_seed(0)
    model = ScenesSegmenter()
    recipe = train_segmenter.Recipe(scenes=8, epochs=6, batch=4)
    train_segmenter.train_round(recipe, painted, model, rng)
    model.eval()
    assert train_segmenter.scores_of(model, painted)["object"][1] > 0.9


def test_sections_of_both_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_gan, "HERE", tmp_path)
    monkeypatch.setattr(train_segmenter, "HERE", tmp_path)
    train_gan.record(Recipe(), Networks().model, {"tree": 0.75}, 50.0)
    scores = {"object": (0.7, 0.9)}
    train_segmenter.record(train_segmenter.Recipe(), ScenesSegmenter(), 16.0, scores)
    text = (tmp_path / "TRAINING.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## scenes-gan", "## scenes-segmenter"]
    assert "tree in 75%" in text
    assert "object mIoU 0.700" in text


def test_weights_that_are_not_there_are_named() -> None:
    with pytest.raises((UsageError, FileNotFoundError), match="scenes-none"):
        load_weights("scenes-none")
