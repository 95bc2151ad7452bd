"""The contract of generators: latents by seed, images in [0, 1], pictures that depend on nothing but the seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import KINDS, write_generators
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.dissect.generators import data
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.making import generate
from microtome.dissect.generators.recipes import edited_pictures
from microtome.dissect.models import load_model
from microtome.storage.errors import UsageError


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generators(tmp_path_factory.mktemp("generators"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 24, 20, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"photo{number:02d}.png")
    return folder


def opened(nets: Path, photos: Path, kind: str) -> Generator:
    inputs = open_dataset(f"images:{photos}") if kind == "translator" else None
    return open_generator(f"{nets}:{kind}", inputs=inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_whatever_else_is_asked_for(nets: Path, photos: Path, kind: str) -> None:
    generator = opened(nets, photos, kind)
    many, few = generator.latents(range(20)), generator.latents([7, 3])
    assert all(torch.equal(one[[7, 3]], other) for one, other in zip(many, few, strict=True))
    pictures = generator.pictures(range(20))
    assert pictures.shape == (20, *generator.size, 3)
    assert len(np.unique(pictures.reshape(20, -1), axis=0)) == 20
    np.testing.assert_array_equal(generator.pictures([7, 3, 19]), pictures[[7, 3, 19]])
    np.testing.assert_array_equal(opened(nets, photos, kind).pictures([11])[0], pictures[11])


@pytest.mark.parametrize("room", [0, 3, 100])
def test_a_dataset_makes_each_picture_once_as_far_as_there_is_room(
    nets: Path, photos: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, asked = opened(nets, photos, KINDS[0]), []
    pictures = generator.pictures(range(5, 13))
    monkeypatch.setattr(data, "KEPT_BYTES", room * pictures[0].nbytes)
    dataset = data.GeneratedDataset("generated:8?seed=5", lambda inputs: generator)
    plain = Generator.pictures

    def counted(self: Generator, seeds: Sequence[int]) -> NDArray[np.uint8]:
        asked.extend(seeds)
        return plain(self, seeds)

    monkeypatch.setattr(Generator, "pictures", counted)
    for _ in range(2):
        with dataset.together([4, 0, 7]):
            for index in (0, 7, 4):
                np.testing.assert_array_equal(dataset.read(index).image, pictures[index])
        for index in range(8):
            np.testing.assert_array_equal(dataset.read(index).image, pictures[index])
    first, rest = [9, 5, 12], [6, 7, 8, 10, 11]
    wanted = {0: 2 * (first + sorted(first + rest)), 3: first + rest + rest, 100: first + rest}[room]
    assert asked == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_in_the_unit_range_and_carry_gradients(nets: Path, photos: Path, kind: str) -> None:
    generator = opened(nets, photos, kind)
    latents = generator.latents([0, 1, 2])
    with torch.no_grad():
        images = generator.images(latents)
    assert images.shape == (3, 3, *generator.size)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    first = latents[0].clone().requires_grad_()
    generator.images((first, *latents[1:])).sum().backward()
    assert first.grad is not None
    assert bool(first.grad.abs().sum() > 0)
    low, high = generator.output_range
    raw = generator.model.run(latents)
    raw = raw["image"] if isinstance(raw, dict) else raw
    torch.testing.assert_close(images, ((raw.detach() - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1))


def test_classes_take_turns(nets: Path) -> None:
    generator = open_generator(f"{nets}:conditional")
    _, classes = generator.latents([0, 1, 5, 300])
    assert classes.tolist() == [0, 1, 2, 0]


def test_a_generator_is_no_model_for_those_that_want_answers(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"is a generator.*microtome audit .*generated:1000 --segmenter"):
        load_model(f"{nets}:plain")


def test_a_classifier_is_no_generator() -> None:
    with pytest.raises(UsageError, match="is no generator"):
        open_generator("builtin:scenes-cnn")


def test_a_classifier_without_preprocessing_is_no_generator(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text("from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    with pytest.raises(UsageError, match=r"is no generator: .*no output_range.*no latent_shape"):
        open_generator(f"{file}:net")


def test_inputs_go_with_networks_that_take_images(nets: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --inputs"):
        open_generator(f"{nets}:plain", inputs=open_dataset(f"images:{photos}"))
    with pytest.raises(UsageError, match="--inputs FOLDER"):
        generate(f"{nets}:translator", tmp_path, seeds=("1",))


def test_images_that_are_not_finite_are_refused_by_seed(tmp_path: Path) -> None:
    file = write_generators(tmp_path)
    text = "\n\nclass Spoilt(Plain):\n    def forward(self, z):\n        images = super().forward(z)\n"
    text += "        return torch.where(z[:, :1, None, None] < -0.5, images / 0, images)\n"
    file.write_text(file.read_text() + text)
    generator = open_generator(f"{file}:Spoilt")
    first = next(seed for seed in range(100) if generator.latents([seed])[0][0, 0] < -0.5)
    assert first > 0
    assert generator.pictures(range(first)).any()
    with pytest.raises(UsageError, match=f"Spoilt gives values that are not finite for seed {first};"):
        generator.pictures(range(first + 30))
    with pytest.raises(UsageError, match=f"not finite for seed {first};"):
        edited_pictures(generator, [], range(first + 3))


BROKEN = {
    "(0,)": ("(-1, 1)", "latent_shape is (0,)"),
    "'8'": ("(-1, 1)", "latent_shape is '8'"),
    "(8,)": ("None", "no output_range"),
    "(8, )": ("(1, -1)", "output_range is (1, -1)"),
    "(9,)": ("(-1, 1)", "does not run on latents (B, 9)"),
}


@pytest.mark.parametrize("shape", BROKEN)
def test_what_does_not_keep_the_contract_is_refused(tmp_path: Path, shape: str) -> None:
    span, words = BROKEN[shape]
    file = write_generators(tmp_path)
    text = file.read_text() + f"\n\ndef broken():\n    net = Plain()\n    net.latent_shape = {shape}\n"
    file.write_text(text + f"    net.output_range = {span}\n    net.sample = None\n    return net.eval()\n")
    with pytest.raises(UsageError) as refused:
        open_generator(f"{file}:broken")
    assert words in str(refused.value)
