"""Text that a page may show: nothing in it steers how its neighbours read."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from microtome.reports.pages import environment
from microtome.reports.payload import data_script
from microtome.reports.text import all_without_controls, without_controls

TURNING = ["\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]


def test_every_control_is_replaced_one_for_one() -> None:
    controls = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Cc", "Zl", "Zp")]
    for control in {*controls, *TURNING} - set("\t\n\r"):
        assert without_controls(f"a{control}b") == "a\ufffdb", hex(ord(control))


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp"])))
def test_all_else_stays(text: str) -> None:
    assert without_controls(text) == text


def test_letters_that_need_joiners_and_line_ends_stay() -> None:
    text = "می\u200cخواهم 👩\u200d🔬\tחתול\r\n\u202f1"
    assert without_controls(text) == text


def test_templates_print_no_controls_in_text_attributes_and_macros() -> None:
    source = (
        "{% macro m(x) %}<i>{{ x }}</i>{% endmacro %}<b title='{{ x }}'>{{ x }}</b>{{ m(x) }}{{ [x, 1] | join(' ') }}"
    )
    seen = environment().from_string(source).render(x="<\u202e>")
    assert seen == "<b title='&lt;\ufffd&gt;'>&lt;\ufffd&gt;</b><i>&lt;\ufffd&gt;</i>&lt;\ufffd&gt; 1"


def test_data_scripts_hold_no_controls() -> None:
    assert data_script("DATA", {"names": [["a\u202e", 1]]}) == 'window.DATA={"names":[["a\\ufffd",1]]};\n'
    assert all_without_controls((1, None, {"a": "\x1b"})) == [1, None, {"a": "\ufffd"}]
