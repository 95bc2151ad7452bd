"""Pieces of the pages: styles of patches, axes, words, colours."""

from __future__ import annotations

import pandas as pd
import pytest

from microtome.reports.pages import (
    LayerFiles,
    axis_ticks,
    category_classes,
    environment,
    field_words,
    patch_style,
    unreadable,
)


def test_addresses_are_encoded_twice_where_folders_are_encoded() -> None:
    assert LayerFiles.of("blocks.1%3Aq").page == "layers/blocks.1%253Aq.html"
    assert LayerFiles.of("a b'(\")").strips == "patches/a%20b%27%28%22%29/"


def test_known_categories_keep_their_colour() -> None:
    styles = category_classes(["scene", "mood", "object", "air"])
    assert styles == ["cat-scene", "cat-other-0", "cat-object", "cat-other-1"]


@pytest.mark.parametrize(("widest", "values"), [(0, []), (1, [0, 1]), (5, [0, 1, 2, 3, 4, 5]), (12, [0, 5, 10])])
def test_round_ticks(widest: int, values: list[int]) -> None:
    assert [tick["value"] for tick in axis_ticks(widest)] == values


@pytest.mark.parametrize("widest", [7, 23, 99, 1234, 87_654])
def test_a_few_ticks_at_any_size(widest: int) -> None:
    assert 2 < len(axis_ticks(widest)) <= 6


def test_a_patch_fills_its_box_from_its_strip() -> None:
    style = dict(part.split(":") for part in patch_style(2, 5, 112, 56, 112).split(";"))
    assert style["width"] == "50.00%"
    assert style["height"] == "100.00%"
    assert style["background-size"] == "1000.00% 100.00%"
    share = float(style["background-position"].split("%")[0]) / 100
    box, strip = 0.5, 5.0
    assert share * (box - strip) == pytest.approx(-2, abs=1e-4)


def test_receptive_fields_in_words() -> None:
    assert field_words({"rows": {"stride": 16, "size": 35}, "columns": {"stride": 16, "size": 37}}) == "35 × 37 px"
    assert field_words({"rows": {"stride": 0, "size": 64}, "columns": {"stride": 0, "size": 64}}) == "whole image"
    assert field_words({}) == ""


def test_the_reasons_come_most_frequent_first() -> None:
    errors = ["ok?", "truncated", "truncated", None]
    table = pd.DataFrame({"index": range(4), "key": list("abcd"), "status": ["error"] * 3 + ["ok"], "error": errors})
    found = unreadable(table)
    assert found["count"] == 3
    assert [(row["reason"], row["count"]) for row in found["reasons"]] == [("truncated", 2), ("ok?", 1)]
    assert [row["key"] for row in found["rows"]] == ["a", "b", "c"]


def test_markup_in_values_is_escaped() -> None:
    assert environment().from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
