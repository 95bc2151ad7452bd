"""Counts as gaps, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.dissect.maths.sparse import add_at_gaps, gaps_of


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=4), st.sampled_from([np.uint8, np.uint32, np.int64]))
def test_arrays_in_a_row_come_back_as_one(parts: list[list[int]], dtype: type) -> None:
    found = [gaps_of(np.array(part, np.int64)) for part in parts]
    whole = np.array([count for part in parts for count in part], np.int64)
    gaps = np.concatenate([np.empty(0, np.int64), *(gaps for gaps, _ in found)])
    counts = np.concatenate([np.empty(0, np.int64), *(counts for _, counts in found)])
    total = np.ones(len(whole), np.int64)
    add_at_gaps(total, gaps.astype(dtype), counts.astype(dtype))
    assert np.array_equal(total, whole + 1)


def test_what_lies_beyond_the_end_is_refused() -> None:
    gaps, counts = gaps_of(np.array([0, 2, 0, 1]))
    assert gaps.tolist() == [1, 2, 1]
    assert counts.tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="do not fit 3 places"):
        add_at_gaps(np.zeros(3, np.int64), gaps, counts)
    with pytest.raises(ValueError, match="2 counts at 3 gaps"):
        add_at_gaps(np.zeros(4, np.int64), gaps, counts[:2])
