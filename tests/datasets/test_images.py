"""Decoding: every kind of file becomes upright RGB or a SampleError; crops agree between image and labels."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.images import PALETTE, encode, photo, regions, save, with_chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from torchvision import transforms

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import (
    MAX_PIXELS,
    Interpolation,
    crop_labels,
    decode_channels,
    decode_image,
    decode_mask,
    resize_crop,
)
from microtome.storage.errors import SampleError

PROFILE = b"srgb\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def reason_of(data: bytes | Path) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data, "a/key.jpg")
    assert caught.value.key == "a/key.jpg"
    assert len(caught.value.reason) < 160
    return caught.value.reason


def png(width: int, height: int, body: bytes = b"", bits: int = 8, colour: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


class TestKindsOfImage:
    def test_rgb_from_bytes_and_path_is_writable(self, tmp_path: Path) -> None:
        pixels = photo()
        for source in (encode(Image.fromarray(pixels)), save(tmp_path / "a.png", pixels), str(tmp_path / "a.png")):
            decoded = decode_image(source, "a")
            assert decoded.dtype == np.uint8
            assert decoded.flags.writeable
            assert decoded.flags.c_contiguous
            np.testing.assert_array_equal(decoded, pixels)

    def test_grey_and_one_bit(self) -> None:
        np.testing.assert_array_equal(
            decode_image(encode(Image.fromarray(GREY)), "a"), np.repeat(GREY[..., None], 3, 2)
        )
        bits = decode_image(encode(Image.fromarray(GREY > 100)), "a")
        np.testing.assert_array_equal(bits[..., 0], np.where(GREY > 100, 255, 0))

    def test_palette_gives_its_colours(self) -> None:
        ids = regions(9, 7).astype(np.uint8)
        image = Image.fromarray(ids, "P")
        image.putpalette(bytes(PALETTE.ravel()))
        for form in ("PNG", "GIF", "BMP"):
            np.testing.assert_array_equal(decode_image(encode(image, form), "a"), PALETTE[ids])

    @pytest.mark.parametrize("transparency", [2, bytes([255, 255, 0])])
    def test_transparent_palette_lies_over_white(self, transparency: int | bytes) -> None:
        ids = regions(9, 7, ids=3).astype(np.uint8)
        image = Image.fromarray(ids, "P")
        image.putpalette(bytes(PALETTE.ravel()))
        expected = PALETTE[ids]
        expected[ids == 2] = 255
        np.testing.assert_array_equal(decode_image(encode(image, transparency=transparency), "a"), expected)

    def test_alpha_lies_over_white(self) -> None:
        rgba = np.zeros((1, 3, 4), np.uint8)
        rgba[0, :, 0] = 200
        rgba[0, :, 3] = 0, 51, 255
        decoded = decode_image(encode(Image.fromarray(rgba)), "a")
        assert decoded.tolist() == [[[255, 255, 255], [244, 204, 204], [200, 0, 0]]]
        la = np.array([[[10, 0], [10, 255]]], np.uint8)
        assert decode_image(encode(Image.fromarray(la)), "a").tolist() == [[[255] * 3, [10] * 3]]
        keyed = encode(Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8)), transparency=(9, 8, 7))
        assert decode_image(keyed, "a").tolist() == [[[255] * 3, [1, 2, 3]]]

    def test_cmyk_jpeg(self) -> None:
        pixels = photo()
        decoded = decode_image(encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=98), "a")
        assert np.abs(decoded.astype(int) - pixels).max() < 30

    def test_sixteen_bits_are_scaled(self) -> None:
        values = np.array([[0, 128, 129, 257 * 7, 65535]], np.uint16)
        for form in ("PNG", "TIFF"):
            decoded = decode_image(encode(Image.fromarray(values), form), "a")
            assert decoded[0, :, 1].tolist() == [0, 0, 1, 7, 255]
        pgm = b"P5 2 1 65535\n" + struct.pack(">HH", 257 * 9, 65535)
        assert decode_image(pgm, "a")[0, :, 0].tolist() == [9, 255]

    @pytest.mark.parametrize(
        ("values", "expected"), [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 99.6, 255.0], [0, 100, 255])]
    )
    def test_floats(self, values: list[float], expected: list[int]) -> None:
        tiff = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
        assert decode_image(tiff, "a")[0, :, 2].tolist() == expected

    @pytest.mark.parametrize("values", [[np.nan, 1.0], [-1.0, 2.0], [0.0, 1e9]])
    def test_floats_without_a_clear_range_are_refused(self, values: list[float]) -> None:
        assert "values" in reason_of(encode(Image.fromarray(np.array([values], np.float32)), "TIFF"))

    @pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_first_frame_of_an_animation(self, form: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert (decode_image(data, "a") == [255, 0, 0]).all()

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, form: str, orientation: int) -> None:
        quadrants = np.zeros((16, 32, 3), np.uint8)
        quadrants[:8, :16], quadrants[:8, 16:], quadrants[8:, :16] = 250, (250, 0, 0), (0, 250, 0)
        back = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7}[orientation]
        undo = [
            lambda a: a,
            lambda a: a[:, ::-1],
            lambda a: a[::-1, ::-1],
            lambda a: a[::-1],
            lambda a: a.transpose(1, 0, 2),
            lambda a: np.rot90(a, 1),
            lambda a: a[::-1, ::-1].transpose(1, 0, 2),
            lambda a: np.rot90(a, -1),
        ][back]
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(np.ascontiguousarray(undo(quadrants)))
        decoded = decode_image(encode(stored, form, exif=exif.tobytes()), "a")
        assert decoded.shape == quadrants.shape
        assert np.abs(decoded[4::8, 8::16].astype(int) - quadrants[4::8, 8::16]).max() < 60


class TestFilesThatAreRefused:
    def test_not_a_file_with_an_image(self, tmp_path: Path) -> None:
        assert "0 bytes" in reason_of(b"")
        assert "0 bytes" in reason_of(save(tmp_path / "empty.jpg", b""))
        assert "not an image" in reason_of(save(tmp_path / "read.txt", b"Thanks for all the fish\n" * 40))
        assert "not an image" in reason_of(b"\0")
        assert "missing" in reason_of(tmp_path / "gone.jpg")
        assert "missing" in reason_of(tmp_path / "read.txt" / "below.jpg")
        assert "folder" in reason_of(tmp_path)
        os.mkfifo(tmp_path / "pipe.jpg")
        assert "regular" in reason_of(tmp_path / "pipe.jpg")

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
    def test_truncated(self, form: str) -> None:
        data = encode(Image.fromarray(photo(64, 64)), form)
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        reason = reason_of(data[: len(data) * 2 // 3])
        assert "truncated" in reason or "damaged" in reason or "not an image" in reason
        assert not ImageFile.LOAD_TRUNCATED_IMAGES

    def test_bombs_are_refused_before_they_are_decoded(self) -> None:
        assert "too large" in reason_of(png(20_000, 20_000))
        assert "too large" in reason_of(png(2**31 - 1, 2**31 - 1))
        side = int(MAX_PIXELS**0.5)
        assert "too large" not in reason_of(png(side, side // 2 + 100))  # Pillow warns of this one; it is truncated
        assert Image.MAX_IMAGE_PIXELS == 89_478_485

    def test_own_limit_holds_where_pillow_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert "20000x20000" in reason_of(png(20_000, 20_000))

    def test_headers_of_impossible_size(self) -> None:
        reason_of(png(0, 5))
        reason_of(b"P5 0 0 255\n")
        reason_of(b"P5 99999999999999999999 1 255\n")
        reason_of(b"BM" + b"\xff" * 60)

    def test_postscript_is_not_run(self) -> None:
        assert "not an image" in reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n" * 9)

    def test_damaged_metadata_does_not_spoil_the_pixels(self) -> None:
        pixels = photo()
        data = encode(Image.fromarray(pixels), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 30)
        assert decode_image(data, "a").shape == pixels.shape


@pytest.fixture(scope="module")
def encoded_files() -> list[bytes]:
    image = Image.fromarray(photo(20, 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(image, "JPEG", exif=exif.tobytes()),
        encode(image, "PNG"),
        encode(image.quantize(16), "PNG", transparency=3),
        encode(image, "GIF"),
        encode(image, "TIFF", compression="tiff_lzw"),
        encode(image, "WEBP"),
        encode(image, "BMP"),
        encode(image.convert("I;16"), "PNG"),
        encode(image, "ICO"),
        encode(image, "PPM"),
    ]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damaged_bytes_decode_or_raise_sample_error(encoded_files: list[bytes], data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(encoded_files)))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for decode in (decode_image, decode_mask):
        try:
            decode(cut, "a")
        except SampleError as error:
            assert error.reason  # noqa: PT017 (most examples decode)


def test_threads_decode_alike_and_keep_warnings_in() -> None:
    wide = png(9500, 9500)  # Pillow warns of a possible bomb; then its data is truncated
    image = encode(Image.fromarray(photo()), "JPEG")
    expected = decode_image(image, "a")

    def work(number: int) -> bool:
        if number % 8 == 0:
            reason_of(wide)
        return bool((decode_image(image, "a") == expected).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(64)))


def test_warnings_stay_in_where_they_are_errors() -> None:
    code = (
        "import sys; from microtome.datasets.images import decode_image\n"
        "from microtome.storage.errors import SampleError\n"
        "try: decode_image(sys.stdin.buffer.read(), 'k')\nexcept SampleError as e: print(e.reason)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=png(9500, 9500), capture_output=True, check=True
    )
    assert b"truncated" in done.stdout
    assert done.stderr == b""


def test_other_warnings_are_left_alone() -> None:
    decode_image(encode(Image.fromarray(photo())), "a")
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


class TestMasks:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    @pytest.mark.parametrize("colour", [0, 3])
    def test_numbers_are_read_as_they_are_stored(self, bits: int, colour: int) -> None:
        ids = (np.arange(24).reshape(3, 8) * 11 % (1 << bits)).astype(np.uint8)
        if colour == 3:
            image = Image.fromarray(ids, "P")
            image.putpalette(bytes(np.random.default_rng(0).integers(0, 256, 3 << bits, dtype=np.uint8)))
            data = encode(image, bits=bits)
        else:
            rows = np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(3, -1)
            data = png(8, 3, b"".join(b"\0" + np.packbits(row).tobytes() for row in rows), bits=bits)
        mask = decode_mask(data, "a")
        assert mask.dtype == np.uint16
        np.testing.assert_array_equal(mask, ids)

    def test_sixteen_bits(self) -> None:
        ids = np.array([[0, 300, 65535]], np.uint16)
        np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(ids)), "a"), ids)

    def test_equal_channels_are_grey_and_colours_are_refused(self) -> None:
        ids = regions(6, 5).astype(np.uint8)
        np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(np.stack([ids] * 3, -1))), "a"), ids)
        opaque = np.stack([ids, ids, ids, np.full_like(ids, 255)], -1)
        np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(opaque)), "a"), ids)
        with pytest.raises(SampleError, match="colours"):
            decode_mask(encode(Image.fromarray(PALETTE[ids])), "a")
        opaque[0, 0, 3] = 4
        with pytest.raises(SampleError, match="transparent"):
            decode_mask(encode(Image.fromarray(opaque)), "a")
        with pytest.raises(SampleError, match="expected grey or indexed"):
            decode_mask(encode(Image.fromarray(ids.astype(np.float32)), "TIFF"), "a")

    @pytest.mark.parametrize("decode", [decode_mask, decode_channels])
    def test_colours_of_sixteen_bits_are_refused(self, decode: Callable[[bytes, str], object]) -> None:
        with pytest.raises(SampleError, match="a mask of kind RGB, 16 bits; expected 8 bits"):
            decode(png(2, 1, b"\0" + bytes([1, 44] * 6), bits=16, colour=2), "a")

    @pytest.mark.parametrize("colour", [4, 6])
    def test_transparency_of_sixteen_bits_is_refused(self, colour: int) -> None:
        with pytest.raises(SampleError, match="16 bits; expected 8 bits"):
            decode_mask(png(2, 1, b"\0" + bytes([255] * 4 * (colour - 2) * 2), bits=16, colour=colour), "a")

    @pytest.mark.parametrize(
        ("kind", "content"),
        [(b"tRNS", bytes([0, 10, 0, 0, 0, 0])), (b"gAMA", (10_000).to_bytes(4)), (b"iCCP", PROFILE)],
    )
    def test_channels_are_as_stored(self, kind: bytes, content: bytes) -> None:
        """Whatever the file says of how its colours look, or which of them is transparent."""
        stored = np.array([[[10, 0, 0], [44, 1, 0], [255, 128, 7]]], np.uint8)
        data = with_chunk(encode(Image.fromarray(stored)), kind, content)
        np.testing.assert_array_equal(decode_channels(data, "a"), stored)


sizes = st.integers(2, 70)


class TestCrops:
    @settings(max_examples=60, deadline=None)
    @given(sizes, sizes, st.integers(4, 40), st.integers(4, 50), st.sampled_from(["bilinear", "bicubic"]))
    def test_equals_torchvision(
        self, height: int, width: int, crop: int, resize: int, interpolation: Interpolation
    ) -> None:
        image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        geometry = CropGeometry.of(height, width, size=(crop, crop + 3), resize=resize)
        mode = transforms.InterpolationMode(interpolation)
        steps = [transforms.Resize(resize, mode), transforms.CenterCrop((crop, crop + 3))]
        expected = np.asarray(transforms.Compose(steps)(Image.fromarray(image))).astype(int)
        ours = resize_crop(image, geometry, interpolation)
        assert ours.dtype == np.uint8
        assert ours.flags.writeable
        rh, rw = geometry.resized
        if rh * rw <= 8 * min(rh, crop) * min(rw, crop + 3):
            np.testing.assert_array_equal(ours, expected)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(60, 90), st.integers(60, 90), st.sampled_from(["bilinear", "bicubic"]))
    def test_small_part_of_a_large_image(self, height: int, width: int, interpolation: Interpolation) -> None:
        image = (photo(height, width) // 2 + 60).astype(np.uint8)
        geometry = CropGeometry.of(height, width, size=(30, 30), resize=150)
        whole = CropGeometry.of(height, width, size=geometry.resized, resize=150)
        part = resize_crop(image, whole, interpolation)[geometry.top :, geometry.left :][:30, :30].astype(int)
        assert np.abs(part - resize_crop(image, geometry, interpolation)).max() <= 2  # two roundings

    @settings(max_examples=80, deadline=None)
    @given(sizes, sizes, st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
    def test_image_and_labels_show_the_same_at_every_pixel(
        self, height: int, width: int, crop: int, resize: int, seed: int
    ) -> None:
        ids = regions(height, width, seed)
        geometry = CropGeometry.of(height, width, size=(crop, crop), resize=resize)
        labels = crop_labels(ids[None], geometry, (crop, crop))
        assert labels.shape == (1, crop, crop)
        image = resize_crop(PALETTE[ids], geometry, "nearest")
        np.testing.assert_array_equal(PALETTE[labels[0]], image)

    @pytest.mark.parametrize(
        ("height", "width", "size", "resize", "grid"),
        [
            (181, 243, (224, 224), 256, (112, 112)),
            (97, 64, (64, 64), 70, (32, 32)),
            (64, 97, (33, 65), 64, (33, 65)),
            (501, 333, (64, 64), 64, (31, 33)),
            (40, 40, (224, 224), None, (112, 112)),
        ],
    )
    @pytest.mark.parametrize("scale", [1, 2])
    def test_smooth_resizing_keeps_regions_in_place(
        self,
        height: int,
        width: int,
        size: tuple[int, int],
        resize: int | None,
        grid: tuple[int, int],
        scale: int,
    ) -> None:
        """Away from borders, the colour under the centre of a label pixel is that label's colour."""
        ids = np.zeros((height, width), np.uint16)
        for id_, rows in enumerate(np.array_split(np.arange(height), 3)):
            for column, columns in enumerate(np.array_split(np.arange(width), 2)):
                ids[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = id_ * 2 + column + 1
        geometry = CropGeometry.of(height, width, size=size, resize=resize)
        image = resize_crop(PALETTE[ids], geometry, "bilinear").astype(int)
        half = ids[::scale, ::scale]
        labels = crop_labels(half[None], geometry, grid)[0]
        at_rows = ((np.arange(grid[0]) + 0.5) * size[0] / grid[0]).astype(int)
        at_columns = ((np.arange(grid[1]) + 0.5) * size[1] / grid[1]).astype(int)
        nearest = np.abs(image[at_rows][:, at_columns][:, :, None] - PALETTE.astype(int)).sum(-1).argmin(-1)
        wrong = nearest != labels
        border = np.zeros_like(wrong)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            border |= np.roll(labels, step, axis) != labels
        if scale == 1:
            assert not (wrong & ~border).any()
        assert wrong.mean() < 0.04 * scale

    def test_half_resolution_masks_agree_exactly(self) -> None:
        ids = regions(45, 61)
        image = PALETTE[ids.repeat(2, 0).repeat(2, 1)]
        geometry = CropGeometry.of(90, 122, size=(80, 80), resize=87)
        labels = crop_labels(ids[None], geometry, (80, 80))[0]
        np.testing.assert_array_equal(PALETTE[labels], resize_crop(image, geometry, "nearest"))

    def test_unresized_crop_is_exact_and_long_images_stay_cheap(self) -> None:
        image = photo(30, 40)
        geometry = CropGeometry.of(30, 40, size=(20, 20), resize=30)
        np.testing.assert_array_equal(resize_crop(image, geometry), image[5:25, 10:30])
        line = np.full((1, 50_000, 3), 77, np.uint8)
        long = resize_crop(line, CropGeometry.of(1, 50_000, size=(224, 224), resize=256))
        assert (long == 77).all()

    def test_geometry_of_another_image_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the geometry is for"):
            resize_crop(photo(8, 8), CropGeometry.of(9, 8, size=(4, 4), resize=4))
