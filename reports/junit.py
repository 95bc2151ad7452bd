"""Results as JUnit XML, which continuous integration reads: one suite, a test case for each thing that was judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from microtome.reports.text import without_controls

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. problem: "" = it holds, else "failure" or "error"; message: one line; text: all of it."""

    name: str
    problem: str = ""
    message: str = ""
    text: str = ""


def junit_xml(suite: str, group: str, cases: Sequence[Case]) -> bytes:
    """The cases as UTF-8; the same cases give the same bytes.

    suite: names the suite; group: the class name under which readers gather the cases. Whatever names hold, what XML
    has no place for, and what would change the direction of writing, is U+FFFD.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.problem == "failure" for case in cases)),
        "errors": str(sum(case.problem == "error" for case in cases)),
    }
    root = ElementTree.Element("testsuites", counts)
    parent = ElementTree.SubElement(root, "testsuite", {"name": _clean(suite), **counts, "skipped": "0"})
    for case in cases:
        element = ElementTree.SubElement(parent, "testcase", {"classname": _clean(group), "name": _clean(case.name)})
        if case.problem:
            message = case.message if len(case.message) <= _LONGEST_MESSAGE else f"{case.message[:_LONGEST_MESSAGE]}..."
            found = ElementTree.SubElement(element, case.problem, {"message": _clean(message), "type": "rule"})
            found.text = _clean(case.text)
    ElementTree.indent(root, " ")
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", without_controls(text))
