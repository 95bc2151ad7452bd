"""The built-in generator and segmenter: what they promise, and what a stranger would see in their pictures."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from torch import Tensor

from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.scenes.compose import compose, setting_of
from microtome.dissect.builtin.gan import ScenesGAN, scenes_gan
from microtome.dissect.builtin.painting import Choice, _Unpainted, paint
from microtome.dissect.builtin.prior import GROUPS, NOISES, PLACES, VALUES, CodePrior
from microtome.dissect.builtin.segmenter import ScenesSegmenter, scenes_segmenter
from microtome.dissect.builtin.train_gan import shares
from microtome.dissect.builtin.train_segmenter import HELD_OUT, scores_of
from microtome.dissect.models import load_model
from microtome.dissect.models.segmenters import load_segmenter
from microtome.storage.errors import UnknownNameError

LAYERS = {
    "prior": (24, 4, 4),
    "block1.relu": (192, 4, 4),
    "block2.relu": (128, 8, 8),
    "fine": (24, 8, 8),
    "block3.relu": (256, 8, 8),
    "block4.relu": (128, 16, 16),
    "block5.relu": (64, 32, 32),
    "to_rgb": (3, 64, 64),
}


@pytest.fixture(scope="module")
def model() -> ScenesGAN:
    return scenes_gan()


@pytest.fixture(scope="module")
def segmenter() -> ScenesSegmenter:
    return scenes_segmenter()


def test_the_layers_and_the_range_of_the_generator(model: ScenesGAN) -> None:
    found: dict[str, tuple[int, ...]] = {}
    least: dict[str, float] = {}

    def keep(name: str, output: Tensor) -> None:
        found[name], least[name] = tuple(output.shape[1:]), float(output.min())

    for name in LAYERS:
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
    with torch.inference_mode():
        images = model(model.sample(4, torch.Generator().manual_seed(0)))
    for name in LAYERS:
        model.get_submodule(name)._forward_hooks.clear()
    assert found == LAYERS
    assert all(value == 0 for name, value in least.items() if name.endswith("relu"))
    assert not model.training
    assert model.latent_shape == (432,)
    assert model.output_range == (-1.0, 1.0)
    assert images.shape == (4, 3, 64, 64)
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.std() > 0.2


def test_latents_follow_their_generator(model: ScenesGAN) -> None:
    first, second = (model.sample(3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == (3, *model.latent_shape)
    assert torch.equal(first, second)


def test_an_image_is_the_same_alone_and_with_others(model: ScenesGAN, segmenter: ScenesSegmenter) -> None:
    z = model.sample(5, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = model(z)
        for index in range(5):
            alone = model(z[index : index + 1])
            torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=0)
        images = (together + 1) / 2
        torch.testing.assert_close(segmenter.logits(images[2:3])[0], segmenter.logits(images)[2], atol=1e-4, rtol=0)


def test_images_depend_on_their_latents_and_gradients_reach_them(model: ScenesGAN) -> None:
    z = model.sample(1, torch.Generator().manual_seed(2)).requires_grad_()
    image = model(z)
    (gradient,) = torch.autograd.grad(image.square().mean(), z)
    assert float(gradient.abs().max()) > 0
    with torch.inference_mode():
        other = model(model.sample(1, torch.Generator().manual_seed(3)))
    assert float((other - image.detach()).abs().mean()) > 0.05


def test_places_are_drawn_as_their_likelihood_reads_them() -> None:
    """Drawing goes place by place with a memory, the likelihood sees all places at once: both know the same mixture."""
    torch.manual_seed(0)
    prior = CodePrior().double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    z = torch.randn(2, PLACES * NOISES, dtype=torch.float64)
    with torch.inference_mode():
        codes = prior(z)
        changed = z.clone().view(2, PLACES, NOISES)
        changed[:, 9] += 1.0
        moved = (prior(changed.flatten(1)) != codes).flatten(2).any(1)
        assert not moved[:, :9].any()
        assert moved[:, 9:].all()
        last = z.clone().view(2, PLACES, NOISES)
        last[:, 9, VALUES - VALUES // GROUPS : VALUES] += 1.0
        moved = (prior(last.flatten(1)) != codes).flatten(2)[:, :, 9]
        assert not moved[:, : -VALUES // GROUPS].any()
        assert moved[:, -VALUES // GROUPS :].all()
        surprise = prior.surprise(codes, codes)
        later = codes.clone().flatten(2)
        later[:, -VALUES // GROUPS :, 9] += 1.0
        other = prior.surprise(codes, later.view_as(codes))
        torch.testing.assert_close(other[:, :10], surprise[:, :10])
        assert (other[:, 10:] != surprise[:, 10:]).all()
        cache: list[tuple[Tensor, Tensor]] = []
        start = prior.start.expand(2, 1, -1)
        read = torch.nn.functional.linear(codes.flatten(2).transpose(1, 2)[:, :-1], prior.read, prior.read_bias)
        x = torch.cat([start, read], 1) + prior.place
        stepwise = torch.cat([prior._through(x[:, place : place + 1], cache) for place in range(PLACES)], 1)
        torch.testing.assert_close(stepwise, prior._through(x, None))


def test_generated_images_show_houses_trees_and_cars(model: ScenesGAN, segmenter: ScenesSegmenter) -> None:
    found = shares(model, segmenter, 100)
    assert found["house"] > 0.8
    assert found["tree"] > 0.4
    assert found["car"] > 0.4
    noise = ScenesGAN().eval()
    assert shares(noise, segmenter, 50)["tree"] < 0.1


def test_the_segmenter_keeps_the_contract(segmenter: ScenesSegmenter) -> None:
    images = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ids, scores, chances = segmenter(images), segmenter.logits(images), segmenter.probabilities(images)
    assert ids.shape == (2, 3, 50, 70)
    assert ids.dtype == torch.int64
    assert scores.shape == chances.shape == (2, len(segmenter.labels), 50, 70)
    planes = torch.tensor(segmenter.planes)
    for plane, name in enumerate(("object", "part", "material")):
        own = planes == plane
        assert {segmenter.category[i] for i in own.nonzero().flatten().tolist()} == {name}
        total = chances[:, own].sum(1)
        assert (total <= 1 + 1e-5).all()
        named = ids[:, plane] >= 0
        assert own[ids[:, plane][named]].all()
        best = scores[:, own].max(1).values
        assert torch.equal(named, best > 0)


def test_the_segmenter_is_differentiable(segmenter: ScenesSegmenter) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    segmenter.probabilities(image)[:, segmenter.labels.index("tree")].sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    assert float(image.grad.abs().max()) > 0


def test_held_out_scenes_are_labelled(segmenter: ScenesSegmenter, tmp_path_factory: pytest.TempPathFactory) -> None:
    few = paint(Choice(HELD_OUT.seed + 7, 60), tmp_path_factory.mktemp("scenes"), 1)
    scores = scores_of(segmenter, few)
    assert scores["object"][1] > 0.8
    assert scores["part"][1] > 0.7
    assert scores["material"][1] > 0.7
    assert scores["object"][0] > 0.45


def test_scenes_painted_small_are_labelled_too(segmenter: ScenesSegmenter) -> None:
    scenes = ScenesDataset(20, 64, 11)
    samples = [scenes.read(index) for index in range(20)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2) / 255
    sky = next(c.id for c in scenes.concepts if c.name == "sky")
    with torch.inference_mode():
        found = (segmenter(images)[:, 0] == segmenter.labels.index("sky")).numpy()
    wanted = np.stack([sample.planes[0] for sample in samples]) == sky
    assert (found & wanted).sum() / (found | wanted).sum() > 0.85


def test_both_are_found_by_their_specs() -> None:
    loaded = load_segmenter("builtin:scenes-segmenter")
    assert loaded.labels[loaded.categories.index("part")] == "wall"
    assert len(loaded.labels) == len(loaded.categories)
    with pytest.raises(UnknownNameError, match="scenes-segmenter"):
        load_segmenter("builtin:scenes-segmentr")
    assert isinstance(load_model("builtin:scenes-gan", for_inspection=True, generators=True).module, ScenesGAN)


def test_their_weights_stay_small() -> None:
    folder = files("microtome.dissect.builtin") / "weights"
    assert len((folder / "scenes-gan.safetensors").read_bytes()) < 5_000_000
    assert len((folder / "scenes-segmenter.safetensors").read_bytes()) < 2_000_000


def test_chosen_scenes_are_the_datasets(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("painted")
    choice = Choice(4, 5, kinds=("village",), lights=("noon", "dawn"))
    scenes, indices = ScenesDataset(1000, 128, 4), choice.indices()
    painted = paint(choice, folder, 1)
    for place, index in enumerate(indices.tolist()):
        truth, sample = scenes.truth(index), scenes.read(index)
        assert truth.kind == "village"
        assert truth.light in choice.lights
        np.testing.assert_array_equal(painted.planes[place], sample.planes[:3, ::2, ::2])
        means = sample.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        np.testing.assert_allclose(painted.images[place], means, atol=1)
    again = paint(choice, folder, 1)
    np.testing.assert_array_equal(again.images, painted.images)
    assert len(list(folder.iterdir())) == 1


def test_chosen_scenes_hold_what_is_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    choice = Choice(
        5, 3, ("village",), grounds=("grass",), layouts=("plain", "road across"), only=("house", "tree", "car"),
        showing="car", tall=0.1, views=3,
    )  # fmt: skip
    scenes, indices = ScenesDataset(100_000, 128, 5), choice.indices()
    for index in indices.tolist():
        truth = scenes.truth(index)
        assert truth.ground == "grass"
        assert truth.layout in choice.layouts
        assert {thing.name for thing in truth.things} <= set(choice.only)
        assert any(t.name == "car" and t.height >= 0.1 and 0.1 <= t.x <= 0.9 for t in truth.things)
    painted = paint(choice, tmp_path_factory.mktemp("painted"), 1)
    assert painted.images.shape == (9, 64, 64, 3)
    whole = paint(replace(choice, views=1), tmp_path_factory.mktemp("whole"), 1)
    np.testing.assert_array_equal(painted.images[::3], whole.images)
    np.testing.assert_array_equal(painted.planes[::3], whole.planes)
    assert (painted.images[1::3] != whole.images).any((1, 2, 3)).all()


def test_what_stands_in_a_scene_is_found_without_paint() -> None:
    scenes = ScenesDataset(40, 128, 6)
    for index in range(40):
        truth, setting = scenes.truth(index), setting_of(6, index)
        assert compose(_Unpainted(16), 6, index)[0] == truth
        assert replace(truth, things=[]) == setting
