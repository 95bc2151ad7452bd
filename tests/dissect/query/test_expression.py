"""Parsing queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.dissect.query.expression import Term, parse, split_address
from microtome.storage.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("concept=car", [("concept", "=", "car")]),
        ("concept=dog iou>0.1 layer=layer4", [("concept", "=", "dog"), ("iou", ">", "0.1"), ("layer", "=", "layer4")]),
        ("concept = traffic light iou >= .1", [("concept", "=", "traffic light"), ("iou", ">=", ".1")]),
        ("concept='a=b iou>2' iou<1", [("concept", "=", "a=b iou>2"), ("iou", "<", "1")]),
        ('label!="x y"', [("label", "!=", "x y")]),
        ("iou>0.1, category==part", [("iou", ">", "0.1"), ("category", "=", "part")]),
        ("iou>0.1 and category=part", [("iou", ">", "0.1"), ("category", "=", "part")]),
        ("IoU>0.1 iou_val>0.2", [("iou", ">", "0.1"), ("iou_val", ">", "0.2")]),
        ("layer=layer[34]", [("layer", "=", "layer[34]")]),
    ],
)
def test_terms(text: str, terms: list[tuple[str, str, str]]) -> None:
    assert parse(text) == [Term(*term) for term in terms]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("car", "cannot read 'car'"),
        ("car iou>1", "cannot read 'car'"),
        ("iou>", "lacks a value"),
        ("iou>much", "takes a number"),
        ("concept>car", "compared by = or !="),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_an_unknown_field_lists_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean concept"):
        parse("concpet=car")


def test_addresses() -> None:
    assert split_address("layer4:123") == (("layer4", 123), "")
    assert split_address("blocks.3.attn:heads:5") == (("blocks.3.attn:heads", 5), "")
    assert split_address("tau=0.05 layer4:7") == (("layer4", 7), "tau=0.05")
    assert split_address("layer4:7 tau=0.05") == (("layer4", 7), "tau=0.05")
    for text in ("concept=a:1", "layer4", "", "layer4:1 layer4:2", "iou>0.1 layer4:1"):
        assert split_address(text) == (None, text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\"'"), min_size=1, max_size=20))
def test_a_quoted_value_survives_whatever_it_holds(value: str) -> None:
    assert parse(f'concept="{value}" iou>0.5') == [Term("concept", "=", value), Term("iou", ">", "0.5")]
