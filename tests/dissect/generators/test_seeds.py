"""Latents to measure on: fresh ones; of an image-to-image network inputs that can be read, by the run's own order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from microtome.dissect.generators.generator import Generator
from microtome.dissect.generators.seeds import FRESH, fresh_seeds, of_run, readable_of_run
from microtome.storage.errors import SampleError, UsageError
from microtome.storage.order import write_order
from microtome.storage.places import open_place
from microtome.storage.run import Run

UNREADABLE = (2, 5)


class Photos:
    """Inputs 0 to 9, of which two cannot be read."""

    def __len__(self) -> int:
        return 10

    def read(self, number: int) -> None:
        if number in UNREADABLE:
            raise SampleError(f"photo{number}", "cut short")


def run_of(folder: Path, spec: str, samples: int, order: list[int] | None = None) -> Run:
    """As much of a run as says which samples it has. order: of its inputs, those of UNREADABLE being errors."""
    place = open_place(folder)
    data = {"spec": spec} | ({} if order is None else {"order": write_order(place, np.array(order))})
    inputs = range(samples) if order is None else order
    status = ["error" if "photos" in spec and number in UNREADABLE else "ok" for number in inputs]
    table = pd.DataFrame({"index": range(samples), "status": status})
    plan = SimpleNamespace(samples=samples)
    run = SimpleNamespace(info={"data": data}, place=place, plan=plan, url=str(folder), table=lambda name: table)
    return cast("Run", run)


def generator(inputs: Photos | None = None) -> Generator:
    return cast("Generator", SimpleNamespace(inputs=inputs))


def test_fresh_latents_lie_behind_those_of_the_run(tmp_path: Path) -> None:
    near, far = (run_of(tmp_path, f"generated:20?seed={first}", 20) for first in (0, FRESH))
    assert fresh_seeds(near, generator(), 3).numbers == (FRESH, FRESH + 1, FRESH + 2)
    assert fresh_seeds(far, generator(), 2).told == {
        "data": f"generated:2?seed={FRESH + 20}",
        "fresh": True,
        "samples": 2,
    }
    last = run_of(tmp_path, f"generated:20?seed={2**63 - 22}", 20)
    with pytest.raises(UsageError, match="no fresh ones are left"):
        fresh_seeds(last, generator(), 2)


def test_inputs_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    run = run_of(tmp_path, "generated:./photos", 4)
    assert readable_of_run(run) == [0, 1, 3]
    found = fresh_seeds(run, generator(Photos()), 4)
    assert (found.numbers, found.fresh) == ((4, 6, 7, 8), True)
    whole = run_of(tmp_path, "generated:./photos", 10)
    found = fresh_seeds(whole, generator(Photos()), 4)
    assert (found.numbers, found.fresh) == ((0, 1, 3, 4), False)


def test_the_samples_of_a_grown_run_are_inputs_in_its_own_order(tmp_path: Path) -> None:
    run = run_of(tmp_path, "generated:./photos", 5, [3, 5, 7, 0, 1])
    assert list(of_run(run)) == [3, 5, 7, 0, 1]
    assert readable_of_run(run) == [3, 7, 0, 1]
    assert fresh_seeds(run, generator(Photos()), 9).numbers == (4, 6, 8, 9)
