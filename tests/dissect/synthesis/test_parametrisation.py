"""Spectra and colours."""

from __future__ import annotations

import pytest
import torch

from microtome.dissect.synthesis.parametrisation import FALL, FourierPainting, spectrum_scale
from microtome.dissect.synthesis.settings import Settings
from microtome.dissect.synthesis.transforms import draw_transforms, transformed


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("size", [(16, 16), (15, 20), (9, 7)])
def test_an_image_comes_back_from_its_spectrum(size: tuple[int, int]) -> None:
    image = 0.1 + 0.8 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    painting = FourierPainting(size, seeded(0, 1), torch.empty(0, dtype=torch.float64), start=image)
    assert torch.allclose(painting.image(painting.coefficients), image.double(), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (31, 24)])
def test_the_scale_gives_images_of_variance_one(size: tuple[int, int]) -> None:
    scale = spectrum_scale(size)
    drawn = torch.randn(400, *scale.shape, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = torch.fft.irfft2(torch.view_as_complex(drawn) * scale, s=size, norm="ortho")
    assert float(plain.square().mean()) == pytest.approx(1, rel=0.05)


def test_low_frequencies_count_more() -> None:
    scale = spectrum_scale((64, 64))
    assert scale[0, 0] == scale[0, 1] == pytest.approx(float(2**FALL * scale[0, 2]))


def test_draws_are_an_images_own() -> None:
    settings = Settings(steps=3)
    both = draw_transforms(settings, (32, 32), seeded(4, 7))
    alone = draw_transforms(settings, (32, 32), seeded(7))
    assert both is not None
    assert alone is not None
    assert torch.equal(both[:, 1], alone[:, 0])


def test_jitter_alone_shifts_by_whole_pixels() -> None:
    settings = Settings(steps=20, scale=0, rotation=0, jitter=0.2)
    maps = draw_transforms(settings, (20, 20), seeded(1))
    assert maps is not None
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        down, across = (round(float(maps[step, 0, axis, 2]) * 10) for axis in (1, 0))
        assert max(abs(down), abs(across)) <= 4
        seen = transformed(image, maps[step])
        inner = slice(4, 16)
        shifted = image[:, :, 4 + down : 16 + down, 4 + across : 16 + across]
        assert torch.allclose(seen[:, :, inner, inner], shifted, atol=1e-4)


def test_nothing_to_change_is_nothing() -> None:
    assert draw_transforms(Settings(jitter=0, scale=0, rotation=0), (8, 8), seeded(0)) is None
