"""JUnit XML: well-formed whatever names hold, with counts that are true."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from microtome.reports.junit import Case, junit_xml

HOSTILE = (
    "</testcase><script>alert('1')</script> \x00\x1b[31m\u202eevil\u2066 \ud800 \ufffe ]]> & \"quoted\" " + "x" * 10_000
)


def test_counts_and_cases() -> None:
    cases = [Case("holds"), Case("fails", "failure", "2 units", "2 units\nblock:1"), Case("odd", "error", "why", "why")]
    root = ElementTree.fromstring(junit_xml("run", "rules", cases))
    (suite,) = root
    for element in (root, suite):
        assert [element.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert [case.get("name") for case in suite] == ["holds", "fails", "odd"]
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"]]
    failure = suite[1][0]
    assert (failure.get("message"), failure.text) == ("2 units", "2 units\nblock:1")


def test_hostile_names_stay_text() -> None:
    xml = junit_xml(HOSTILE, HOSTILE, [Case(HOSTILE, "failure", HOSTILE, HOSTILE)])
    text = xml.decode("utf-8")
    assert not any(mark in text for mark in ("\x00", "\x1b", "\u202e", "\u2066", "\ufffe", "<script"))
    (suite,) = ElementTree.fromstring(xml)
    (case,) = suite
    assert [child.tag for child in case] == ["failure"]
    name = case.get("name") or ""
    assert name.startswith("</testcase><script>alert('1')</script>")
    assert name.endswith("x" * 10_000)
    assert len(case[0].get("message") or "") < 1100


@given(st.text(), st.text())
def test_any_text_makes_xml_that_can_be_read(name: str, text: str) -> None:
    (suite,) = ElementTree.fromstring(junit_xml(name, "rules", [Case(name, "error", text, text)]))
    assert len(suite) == 1
