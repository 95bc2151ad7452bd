"""The data of a page: safe inside HTML, honest in its digits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.runs import HOSTILE, HOSTILE_KEY
from hypothesis import given
from hypothesis import strategies as st

from microtome.reports.payload import data_script, rounded, safe_json


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_safe_json_reads_back_and_holds_no_markup(value: object) -> None:
    text = safe_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_hostile_names_cannot_end_the_script() -> None:
    script = data_script("DATA", {"name": HOSTILE, "key": HOSTILE_KEY})
    assert "</script" not in script.lower()
    assert "\u2028" not in script
    assert script.startswith("window.DATA={")


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        safe_json(float("nan"))


def test_rounding_keeps_significant_digits() -> None:
    values = np.array([1234567.0, 0.000123456789, np.nan, np.inf, -2.0])
    assert rounded(values, 3) == [1230000.0, 0.000123, None, None, -2.0]
