"""The pipeline of capture: order, bounds, failures; a device that answers later; less precise arithmetic."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.compare import differences
from helpers.planted import write_planted
from torch import Tensor, nn

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit import prepare
from microtome.dissect.audit.devices import Arrival, DirectDevice
from microtome.dissect.audit.forward import Forward, ScaleOverflow
from microtome.dissect.audit.job import Division, Job
from microtome.dissect.audit.precision import check_precision
from microtome.dissect.audit.schedule import ThreadExecutor, run_shards
from microtome.dissect.audit.stages import capture, passes
from microtome.dissect.audit.stages.index import run_index
from microtome.dissect.audit.turns import Slots, TurnPool
from microtome.dissect.models import Model, Preprocess
from microtome.storage.errors import RunMismatchError, UnknownNameError, UsageError

SHARDS = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    run_audit(config_of(source, source.parent / "undisturbed"))
    return source.parent / "undisturbed"


def config_of(source: Path, out: Path, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ("units", "head"),
        "out": out,
        "tau": (0.05,),
        "batch": 2,
        "shard_samples": 4,
        "top": 3,
        "map": False,  # maps are for test_map.py
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


@pytest.fixture
def job(source: Path, tmp_path: Path) -> Job:
    job = prepare.prepare(config_of(source, tmp_path / "run"), ThreadExecutor())
    run_index(job)
    return job


# Turns and slots


def test_the_lowest_turn_goes_first_and_equals_in_order() -> None:
    gate, done = threading.Event(), []
    with TurnPool(1, "test") as pool:
        futures = [pool.submit(9, gate.wait)]
        for turn, name in ((3, "d"), (1, "a"), (2, "c"), (1, "b")):
            futures.append(pool.submit(turn, lambda name=name: done.append(name)))
        gate.set()
        for future in futures:
            future.result()
    assert done == ["a", "b", "c", "d"]


def test_a_pool_hands_errors_on_and_cancels_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        gate.wait()
        raise ValueError("broken")

    with TurnPool(1, "test") as pool:
        failing, waiting = pool.submit(0, fail), pool.submit(1, lambda: None)
        begun.wait()
        threading.Timer(0.05, gate.set).start()
    assert isinstance(failing.exception(), ValueError)
    assert waiting.cancelled()


def test_waiting_for_a_slot_ends_when_told_to() -> None:
    class EnoughError(Exception):
        pass

    def enough() -> None:
        raise EnoughError

    slots = Slots(1)
    with slots.one(enough), pytest.raises(EnoughError), slots.one(enough):
        pass
    with slots.one(enough):
        pass


# The pipeline


def test_a_slow_writer_holds_back_the_rest(job: Job, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lanes there are, no more shards are in memory than there are slots, and none is lost."""
    bound, alive, most, lock = 3, 0, 0, threading.Lock()
    compute, commit = passes.Passage.compute, capture.CaptureShard._commit

    def counted(self: passes.Passage, samples: range, turn: int) -> object:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return compute(self, samples, turn)

    def slow(self: capture.CaptureShard, *arguments: object) -> None:
        nonlocal alive
        time.sleep(0.03)
        commit(self, *arguments)  # type: ignore[arg-type]
        with lock:
            alive -= 1

    monkeypatch.setattr(passes.Passage, "compute", counted)
    monkeypatch.setattr(capture.CaptureShard, "_commit", slow)
    monkeypatch.setattr(passes, "shards_at_once", lambda job: bound)
    seen: list[int] = []
    with capture.capture_worker(job, seen.append) as task:
        run_shards("capture", task, range(SHARDS), workers=8, stop=job.stop)
    assert most == bound
    assert sum(seen) == job.samples == 48
    assert job.commits("capture").done(SHARDS) == set(range(SHARDS))
    changed = [name for name in differences(undisturbed, job.run.path) if name.startswith("arrays.zarr/")]
    assert [name for name in changed if not name.startswith("arrays.zarr/presence/")] == []  # which the tally writes


def test_memory_bounds_the_shards_at_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes.shards_at_once(job) == job.division.lanes
    monkeypatch.setattr(passes, "MEMORY_SHARE", 0.0)
    assert passes.shards_at_once(job) == 2


def test_batches_are_decoded_ahead_within_memory(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes.batches_ahead(job) == 1 + -(-job.division.workers // 2)
    monkeypatch.setattr(passes, "AHEAD_BYTES", 1)
    assert passes.batches_ahead(job) == 1


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("where", ["decode", "forward", "write"])
def test_a_failure_anywhere_stops_cleanly_and_loses_nothing(
    where: str, source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    calls = 0
    owner, name = {
        "decode": (passes, "read_item"),
        "forward": (Forward, "_compute"),
        "write": (capture.CaptureShard, "_commit"),
    }[where]
    original = getattr(owner, name)

    def break_later(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise BrokenError
        return original(*arguments)

    monkeypatch.setattr(owner, name, break_later)
    with pytest.raises(BrokenError):
        run_audit(config_of(source, tmp_path / "run"))
    monkeypatch.undo()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "forward", "capture"))]
    assert threading.active_count() <= threads + 8  # zarr's own threads stay
    run_audit(config_of(source, tmp_path / "run"))
    assert differences(undisturbed, tmp_path / "run") == []


# A device that answers later


class Later(DirectDevice):
    """Results are wrong until their arrival was waited for, as with copies that are still on their way."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self._under_way: list[tuple[Tensor, Tensor]] = []
        self.queued = 0

    def batch(self) -> AbstractContextManager[object]:
        self.queued += 1
        return nullcontext()

    def largest_magnitude(self, maps: Tensor) -> Tensor:
        finite = torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
        return torch.stack(torch.aminmax(finite)).abs().amax().to(torch.float32)

    def download(self, values: Tensor) -> Tensor:
        host = torch.full_like(values, 77.0)
        self._under_way.append((host, values))
        return host

    def mark(self) -> Arrival:
        copies, self._under_way = self._under_way, []
        return Copies(copies)


class Copies:
    def __init__(self, copies: list[tuple[Tensor, Tensor]]) -> None:
        self._copies = copies

    def synchronize(self) -> None:
        for host, values in self._copies:
            host.copy_(values)


class Layers(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 4, 3)
        self.two = nn.ReLU(inplace=True)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x) * self.factor)


def model_of(factor: float = 1.0) -> Model:
    preprocess = Preprocess(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")
    return Model("test", Layers(factor).eval(), preprocess)


def division_of(precision: str = "float32") -> Division:
    return Division(torch.device("cpu"), 2, 3, 1, 1, True, precision)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_results_that_come_later_are_the_same(images: list[np.ndarray], scale: float) -> None:
    names, scales = ["one", "two"], {"one": scale, "two": 2 * scale}
    with Forward(model_of(), names, division_of(), scales) as forward:
        expected = forward.submit(images).wait()
    device = Later()
    with Forward(model_of(), names, division_of(), scales, device) as forward:
        both = [forward.submit(images), forward.submit(images[::-1])]
        results = [captured.wait() for captured in both]
    assert device.queued == 2
    for name in names:
        np.testing.assert_array_equal(results[0][name], expected[name])
        np.testing.assert_array_equal(results[1][name], expected[name][::-1])


@pytest.mark.parametrize("device", [None, Later], ids=["waited for", "later"])
def test_what_does_not_fit_float16_is_noticed(
    images: list[np.ndarray], device: Callable[[], DirectDevice] | None
) -> None:
    with (
        Forward(model_of(1e5), ["one", "two"], division_of(), {"two": 2.0}, device and device()) as forward,
        pytest.raises(ScaleOverflow) as caught,
    ):
        forward.submit(images).wait()
    assert caught.value.layer == "two"
    assert caught.value.magnitude >= 2 * 65520
    with Forward(model_of(1e5), ["two"], division_of(), {"two": 64.0}, device and device()) as forward:
        assert np.isfinite(forward.submit(images).wait()["two"]).all()


def test_infinities_of_the_model_are_no_overflow(images: list[np.ndarray]) -> None:
    for device in (None, Later()):
        with Forward(model_of(float("inf")), ["two"], division_of(), {}, device) as forward:
            values = forward.submit(images).wait()["two"]
        assert not np.isfinite(values).all()


def test_an_overflow_crosses_processes() -> None:
    copy = pickle.loads(pickle.dumps(ScaleOverflow("layer4", 1e5)))
    assert (copy.layer, copy.magnitude, str(copy)) == ("layer4", 1e5, "layer layer4 gives 100000")


# Precision


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 2**-7), ("float16", 2**-9)])
@pytest.mark.usefixtures("threads")
def test_less_precision_differs_by_its_rounding(images: list[np.ndarray], precision: str, error: float) -> None:
    with Forward(model_of(), ["one"], division_of()) as forward:
        exact = forward.submit(images).wait()["one"].astype(np.float32)
    with Forward(model_of(), ["one"], division_of(precision)) as forward:
        rounded = forward.submit(images).wait()["one"].astype(np.float32)
    distance = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 0 < distance < 4 * error


def test_precision_belongs_to_the_run(source: Path, tmp_path: Path, undisturbed: Path) -> None:
    outcome = run_audit(config_of(source, tmp_path / "run", precision="bfloat16"))
    assert outcome.run.info["config"]["precision"] == "bfloat16"
    assert differences(undisturbed, tmp_path / "run") != []
    with pytest.raises(RunMismatchError, match="another precision"):
        run_audit(config_of(source, undisturbed, precision="bfloat16"))


def test_precision_that_is_not_to_be_had_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tf32 is arithmetic of CUDA devices"):
        run_audit(config_of(source, tmp_path / "run", precision="tf32"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UnknownNameError, match="did you mean float32"):
        config_of(source, tmp_path / "run", precision="float23")
    check_precision("bfloat16", torch.device("cpu"))
