"""Explained variance: how many components it takes, and the figure."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from microtome.reports.maps.variance import Variance, variance_svg
from microtome.storage.errors import RunDamagedError


def table_of(ratio: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"component": range(len(ratio)), "variance": ratio, "ratio": ratio})


def test_digits_need_what_scikit_learn_says() -> None:
    data = load_digits().data
    variance = Variance.of(table_of(PCA().fit(data).explained_variance_ratio_.tolist()))
    for share in (0.5, 0.9, 0.99):
        assert variance.needed(share) == PCA(share).fit(data).n_components_
    assert variance.words() == "50% of the variance lies in 5 components, 90% in 21, 99% in 41"


def test_components_that_are_the_first_of_more() -> None:
    variance = Variance.of(table_of([0.6, 0.2]))
    assert [variance.needed(share) for share in (0.5, 0.8, 0.9)] == [1, 2, None]
    assert variance.words() == "50% of the variance lies in 1 component, 90% in more than 2, 99% in more than 2"


def test_rows_in_any_order() -> None:
    assert Variance.of(table_of([0.5, 0.3, 0.2]).iloc[::-1]).ratio.tolist() == [0.5, 0.3, 0.2]


@pytest.mark.parametrize("ratio", [[0.5, float("nan")], [1.2], [0.9, -0.1]])
def test_shares_that_are_none_are_damage(ratio: list[float]) -> None:
    with pytest.raises(RunDamagedError, match="no shares"):
        Variance.of(table_of(ratio))


@pytest.mark.parametrize("count", [1, 2, 24, 25, 256])
def test_the_figure_holds_all_components_inside_its_frame(count: int) -> None:
    ratio = 0.8 ** np.arange(count)
    svg = ElementTree.fromstring(str(variance_svg(Variance.of(table_of((ratio / ratio.sum()).tolist())))))
    space = "{http://www.w3.org/2000/svg}"
    line = [tuple(map(float, pair.split(","))) for pair in svg.find(f"{space}polyline").attrib["points"].split()]  # type: ignore[union-attr]
    assert len(line) == count
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    assert min(xs) >= 44
    assert max(xs) <= width
    assert min(ys) == pytest.approx(12, abs=0.1)
    assert max(ys) <= height
    assert svg.find(f"{space}path").attrib["d"].count("M") == count  # type: ignore[union-attr]
    title = svg.find(f"{space}title")
    assert title is not None
    assert "99% in" in (title.text or "")


def test_no_components_no_figure() -> None:
    assert variance_svg(Variance.of(table_of([]))) == ""
    assert Variance.of(table_of([])).needed(0.5) is None
