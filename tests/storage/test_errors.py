"""The tree of errors: what the module draws is what there is; messages lead on."""

from __future__ import annotations

import builtins
import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.storage import errors
from microtome.storage.errors import MicrotomeError, SampleError, UnknownNameError, UsageError, near_names

CODES = {
    "MicrotomeError": 1,
    "UsageError": 2,
    "UnknownNameError": 2,
    "DoesNotApplyError": 2,
    "SampleError": 3,
    "RunMismatchError": 4,
    "RunDamagedError": 4,
    "RunLockedError": 4,
    "PlaceUnreachableError": 1,
    "OutOfSpaceError": 1,
    "NotWritableError": 1,
}


def classes() -> dict[str, type[MicrotomeError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, MicrotomeError)
    }


def drawn() -> dict[str, tuple[str, str | None]]:
    """{class: (parent, builtin it also is)} as the module's docstring draws them."""
    stack: list[tuple[int, str]] = []
    found: dict[str, tuple[str, str | None]] = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        match = re.match(r"^(?P<lead>[\s│├└─]*)(?P<name>\w+Error)(?: \((?P<builtin>\w+)\))?\s", line)
        if match is None:
            continue
        depth = len(match["lead"])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        found[match["name"]] = (stack[-1][1] if stack else "Exception", match["builtin"])
        stack.append((depth, match["name"]))
    return found


def test_the_tree_in_the_docstring_is_the_tree_that_exists() -> None:
    tree = drawn()
    assert set(tree) == set(classes()) == set(CODES)
    for name, (parent, builtin) in tree.items():
        bases = {base.__name__ for base in classes()[name].__bases__} if name in classes() else set()
        assert bases == {parent} | ({builtin} if builtin else set()), name
        assert builtin is None or issubclass(getattr(builtins, builtin), Exception)


def test_exit_codes() -> None:
    assert {name: kind.exit_code for name, kind in classes().items()} == CODES


def test_errors_say_what_was_given() -> None:
    error = SampleError("train/7.png", "empty file")
    assert (error.key, error.reason, str(error)) == ("train/7.png", "empty file", "train/7.png: empty file")
    unknown = UnknownNameError("layer", "conv9", ["conv1", "fc"], hint="Look again.")
    assert isinstance(unknown, UsageError)
    assert isinstance(unknown, LookupError)
    assert str(unknown) == "no layer named 'conv9'; did you mean conv1? Look again."
    assert unknown.name == "conv9"
    assert unknown.near == ["conv1"]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ([], "there is no concept at all."),
        (["sky", "road"], "known: road, sky."),
        ([f"c{n:02d}" for n in range(13)], "there are 13, such as c00, c01, c02, c03, c04, c05, c06, c07."),
        (["elephants", "elephant", "sky"], "did you mean elephant or elephants?"),
    ],
)
def test_advice_depends_on_what_is_known(known: list[str], message: str) -> None:
    name = "elephan" if "elephant" in known else "zebra"
    assert str(UnknownNameError("concept", name, known)) == f"no concept named {name!r}; {message}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DOG", ["Dog"]),
        ("dgo", ["Dog"]),
        ("cycl", ["bicyclist", "motorcycle rider"]),
        ("", []),
        ("qqqq", []),
    ],
)
def test_near_names(name: str, expected: list[str]) -> None:
    assert near_names(name, ["Dog", "bicyclist", "motorcycle rider", "sky"]) == expected


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=12), st.integers(1, 5))
def test_near_names_are_known_names_once_each(name: str, known: list[str], limit: int) -> None:
    near = near_names(name, known, limit)
    assert len(near) <= limit
    assert set(near) <= set(known)
    if name in known:
        assert near[0].casefold() == name.casefold()


def test_names_that_differ_in_case_only_are_both_near() -> None:
    assert near_names("relu", ["ReLU", "relu"]) == ["ReLU", "relu"]


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("layer", "conv9", ["conv1", "fc"], hint="Look again."),
        SampleError("train/7.png", "empty file"),
        errors.UsageError("no such thing"),
        errors.PlaceUnreachableError("gone"),
        errors.OutOfSpaceError("full"),
    ],
)
def test_an_error_of_another_process_arrives_as_it_was(error: MicrotomeError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {name: value for name, value in vars(back).items() if name[0] != "_"} == {
        name: value for name, value in vars(error).items() if name[0] != "_"
    }
