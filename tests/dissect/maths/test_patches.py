from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.patches import TopPatches


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 30),
    units=st.integers(1, 4),
    k=st.integers(1, 8),
    data=st.data(),
)
def test_any_split_and_order_gives_the_sorted_best(seed: int, n: int, units: int, k: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    peak = np.round(rng.standard_normal((n, units)) * 2).astype(np.float16)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        peak[rng.random(peak.shape) < 0.1] = value
    at = rng.integers(0, 50, (n, units)).astype(np.int32)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    bounds = data.draw(st.permutations(list(zip([0, *cuts], [*cuts, n], strict=True))))
    total = TopPatches.empty(units, k)
    for begin, end in bounds:
        part = TopPatches.empty(units, k)
        part.update(peak[begin:end], at[begin:end], begin)
        total.merge(TopPatches.from_arrays(part.to_arrays()))
    for unit in range(units):
        ranked = sorted((-float(v), s) for s, v in enumerate(peak[:, unit]) if not np.isnan(v))[:k]
        samples = [s for _, s in ranked]
        missing = k - len(samples)
        assert total.sample[unit].tolist() == samples + [-1] * missing
        assert total.position[unit].tolist() == [int(at[s, unit]) for s in samples] + [-1] * missing
        np.testing.assert_array_equal(total.value[unit], [float(peak[s, unit]) for s in samples] + [np.nan] * missing)


def test_samples_may_arrive_in_any_order() -> None:
    forward, backward = TopPatches.empty(1, 3), TopPatches.empty(1, 3)
    peak = np.array([[1.0], [2.0], [2.0], [2.0], [2.0]], np.float16)
    at = np.zeros((5, 1), np.int32)
    forward.update(peak, at, 0)
    for sample in reversed(range(5)):
        backward.update(peak[sample : sample + 1], at[:1], sample)
    assert forward.sample.tolist() == backward.sample.tolist() == [[1, 2, 3]]
