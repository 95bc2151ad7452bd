"""What the page's decoders undo gives back what was encoded; the same content gives the same text."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.map_files import decode_bits, decode_file, decode_order, decode_top, decode_view
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from microtome.reports.maps.encode import (
    Box,
    byte_split,
    data_file,
    encode_all,
    encode_bits,
    encode_classes,
    encode_clusters,
    encode_order,
    encode_top,
    encode_view,
    levels,
    morton,
    packed,
    page_order,
    quantise,
    zigzag,
)

COORDINATES = st.floats(-1e6, 1e6, width=32)
POSITIONS = st.integers(1, 60).flatmap(lambda n: hnp.arrays(np.float32, (n, 2), elements=COORDINATES))
PEAKS = hnp.arrays(np.float32, st.integers(1, 80), elements=st.floats(-4, 50, width=32) | st.just(float("nan")))


@given(POSITIONS)
def test_positions_come_back_to_half_a_step(positions: NDArray[np.float32]) -> None:
    box = Box.around(positions)
    found = decode_view(encode_view(positions, box), box.values())
    steps = np.array([box.x1 - box.x0, box.y1 - box.y0]) / 65535
    assert np.all(np.abs(found - positions) <= 0.5 * steps * (1 + 1e-6) + 1e-9)


def test_the_edges_of_a_box_are_its_first_and_last_step() -> None:
    positions = np.array([[-3, 1], [5, 2]], np.float32)
    box = Box.around(positions)
    assert box.values() == [-3.0, 1.0, 5.0, 2.0]
    assert quantise(positions[:, 0], box.x0, box.x1).tolist() == [0, 65535]
    assert quantise(np.array([-9, 99], np.float32), box.x0, box.x1).tolist() == [0, 65535]


@pytest.mark.parametrize("positions", [np.zeros((0, 2)), np.full((1, 2), 7), np.full((4, 2), -2)])
def test_points_without_extent_have_a_box_all_the_same(positions: NDArray[np.float64]) -> None:
    box = Box.around(positions.astype(np.float32))
    assert (box.x1 - box.x0, box.y1 - box.y0) == (1.0, 1.0)
    found = decode_view(encode_view(positions.astype(np.float32), box), box.values())
    assert found == pytest.approx(positions, abs=1e-4)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_morton_code_takes_the_bits_in_turn(x: int, y: int) -> None:
    expected = int("".join(b + a for a, b in zip(f"{x:016b}", f"{y:016b}", strict=True)), 2)
    assert morton(np.array([x], np.uint16), np.array([y], np.uint16)).tolist() == [expected]


def test_the_order_of_points_follows_the_curve_and_ties_keep_theirs() -> None:
    grid = np.array([[x, y] for y in range(4) for x in range(4)], np.float32)
    curve = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert page_order(grid).tolist() == curve
    assert page_order(np.ones((5, 2), np.float32)).tolist() == [0, 1, 2, 3, 4]


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(0, 2**31 - 1)))
def test_the_order_comes_back(samples: NDArray[np.int64]) -> None:
    assert decode_order(encode_order(samples)).tolist() == samples.tolist()


def test_zigzag_interleaves_the_signs() -> None:
    values = np.array([0, -1, 1, -2, 2, 2**31 - 1, -(2**31)], np.int32)
    assert zigzag(values).tolist() == [0, 1, 2, 3, 4, 2**32 - 2, 2**32 - 1]


def test_bytes_are_split_low_before_high() -> None:
    assert byte_split(np.array([0x0102, 0x0304], np.uint16)) == bytes([2, 4, 1, 3])


@given(hnp.arrays(np.bool_, st.integers(0, 70)))
def test_bits_come_back(present: NDArray[np.bool_]) -> None:
    content = encode_bits(present)
    assert len(content) == -(-len(present) // 8)
    assert decode_bits(content, len(present)).tolist() == present.tolist()


def test_numbers_that_do_not_fit_are_none() -> None:
    classes = np.frombuffer(encode_classes(np.array([0, 3, -1, 65534, 65535, 99999])), "<u2")
    assert classes.tolist() == [0, 3, 65535, 65534, 65535, 65535]
    clusters = np.frombuffer(encode_clusters(np.array([0, 9, -1, 32767, 32768], np.int32)), "<i2")
    assert clusters.tolist() == [0, 9, -1, 32767, -1]


@given(PEAKS)
@example(np.array([1.1754944e-38], np.float32))
def test_peaks_become_shares_of_the_maximum(peaks: NDArray[np.float32]) -> None:
    maximum = float(np.nanmax(peaks, initial=0))
    expected = [
        0 if not (maximum > 0 and peak > 0) else round(peak / maximum * 255) for peak in peaks.astype(float).tolist()
    ]
    found = levels(peaks, maximum).astype(int)
    assert np.abs(found - expected).max() <= 1  # float32 against float64 at a half
    assert encode_all(peaks, maximum) == levels(peaks, maximum).tobytes()


@given(PEAKS)
def test_the_top_holds_its_points_and_their_values(peaks: NDArray[np.float32]) -> None:
    maximum = float(np.nanmax(peaks, initial=0))
    points = np.flatnonzero(np.arange(len(peaks)) % 3)
    found = decode_top(encode_top(points, peaks[points], maximum), len(peaks))
    expected = levels(peaks, maximum)
    expected[::3] = 0
    assert np.array_equal(found, expected)


def test_infinite_and_silent_peaks() -> None:
    odd = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)
    assert levels(odd, 2.0).tolist() == [255, 0, 0, 128]
    assert levels(odd, 0.0).tolist() == levels(odd, float("nan")).tolist() == [0, 0, 0, 0]


@given(st.binary(max_size=300), st.text(max_size=20))
def test_a_file_gives_its_name_and_content_back(content: bytes, name: str) -> None:
    text = data_file(name, content)
    assert decode_file(text) == (name, content)
    assert text == data_file(name, content)
    assert text.isascii()
    assert "<" not in text


def test_the_same_content_is_the_same_text_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = packed(b"abc")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert packed(b"abc") == before
