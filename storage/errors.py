"""Every error that Microtome raises on purpose, in one tree.

    MicrotomeError                    exit code 1
    ├── UsageError (ValueError)       2: what was asked for cannot be done as asked
    │   ├── UnknownNameError (LookupError)   a name that is not there; lists the near ones
    │   └── DoesNotApplyError                a method that has no meaning for this model; says why
    ├── SampleError (ValueError)      one image or mask cannot be used; recorded, skipped, exit code 3 at the end
    ├── RunMismatchError (ValueError) 4: a run exists and does not match what was asked for
    ├── RunDamagedError (OSError)     4: a run's files are missing, truncated or altered
    ├── RunLockedError (RuntimeError) 4: somebody else is at work on the run
    ├── PlaceUnreachableError         1: the bucket that holds the run did not answer for too long
    ├── OutOfSpaceError               1: the disk or quota that holds the run is full
    └── NotWritableError              1: the run lies where this user may not write

A message says what was given, what was expected and what to do next. The command line prints it without a
traceback and exits with `exit_code`. All survive pickling: one may be raised in another process.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MicrotomeError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(MicrotomeError, ValueError):
    """An argument, option, spec or file of the user's is not usable."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name (layer, concept, model, dataset, ...) does not exist.

    kind: what was looked up, in the singular ("layer"); name: as given; known: every valid name.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(set(known))
        near = near_names(name, names)
        if near:
            advice = f"did you mean {_either(near)}?"
        elif not names:
            advice = f"there is no {kind} at all."
        elif len(names) <= 12:
            advice = f"known: {', '.join(names)}."
        else:
            advice = f"there are {len(names)}, such as {', '.join(names[:8])}."
        super().__init__(f"no {kind} named {name!r}; {advice}{' ' + hint if hint else ''}")
        self.name = name
        self.near = near
        self._made_of = (kind, name, tuple(names), hint)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...], str]]:
        return type(self), self._made_of


class DoesNotApplyError(UsageError):
    """A method of explanation has no meaning for a model, or for one of its layers.

    method: its name; reason: a clause that says why; advice: what to do instead.
    """

    def __init__(self, method: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{method} does not apply: {reason}{'; ' + advice if advice else ''}")
        self.method, self.reason, self.advice = method, reason, advice

    def __reduce__(self) -> tuple[type[DoesNotApplyError], tuple[str, str, str]]:
        return type(self), (self.method, self.reason, self.advice)


class SampleError(MicrotomeError, ValueError):
    """One sample cannot be read. `key` names it, `reason` is short and stands in samples.parquet."""

    exit_code = 3

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        return type(self), (self.key, self.reason)


class RunMismatchError(MicrotomeError, ValueError):
    """The run on disk was made with another model, weights, data or setting than is asked for now."""

    exit_code = 4


class RunDamagedError(MicrotomeError, OSError):
    """A file of the run is missing, truncated or not what its commit says."""

    exit_code = 4


class PlaceUnreachableError(MicrotomeError):
    """A bucket gave no usable answer for as long as patience lasted. What was committed before is safe."""


class OutOfSpaceError(MicrotomeError):
    """The disk or quota that holds a run is full. What was committed before is safe."""


class NotWritableError(MicrotomeError):
    """The run's place is read-only, or this user may not write there. What is there is as it was."""


class RunLockedError(MicrotomeError, RuntimeError):
    """Somebody else is at work on the run, or has taken it over."""

    exit_code = 4


def near_names(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The known names closest to `name`, without regard to case, closest first; at most `limit`."""
    by_folded: dict[str, list[str]] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), []).append(candidate)
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=limit, cutoff=0.6)
    inside = sorted((k for k in by_folded if folded and folded in k and k not in close), key=len)
    return [original for key in (close + inside)[:limit] for original in by_folded[key]][:limit]


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
