"""Dask clusters on loopback: a scheduler and workers as processes of their own, with faults to order.

A worker preloads this very file. It then notes what it commits in the folder CONTROL, and looks there for orders:
    pause               wait a moment before each commit
    kill-STAGE-SHARD    die by SIGKILL at that commit: "before" it, "after" it, or "always" (and not once)
The variable PRETEND_VERSION makes a worker claim to have that Microtome.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

CONTROL, PRETEND_VERSION = "MICROTOME_TEST_CONTROL", "MICROTOME_TEST_VERSION"
LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
PAUSE_SECONDS = 0.15
PATIENCE = 180.0


class DaskProcesses:
    """A scheduler at `address`; workers are added as contexts."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.control = folder / "control"
        self.control.mkdir(parents=True)
        self._log = (folder / "dask.log").open("ab")
        self._environment = {**os.environ, **environment, CONTROL: str(self.control)}
        self._environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "0"
        file = folder / "scheduler.json"
        options = [*LOOPBACK, "--port", "0", "--scheduler-file", str(file)]
        self.scheduler = self._start("dask_scheduler", *options)
        wait_until(lambda: file.exists() and file.stat().st_size > 0)
        self._file = file
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            self.address: str = client.scheduler_info(n_workers=0)["address"]

    def _start(self, tool: str, *options: str, environment: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{tool}", *options],
            env={**self._environment, **environment},
            stdout=self._log,
            stderr=self._log,
        )

    @contextmanager
    def workers(
        self, *names: str, options: Iterable[str] = ("--nthreads", "1"), environment: Mapping[str, str] = {}
    ) -> Iterator[None]:
        """Workers of these names, each with a nanny that starts it again when it dies."""
        processes = [
            self._start(
                "dask_worker",
                *LOOPBACK,
                *("--scheduler-file", str(self._file), "--name", name),
                *("--preload", __file__, "--local-directory", str(self.control.parent / name), *options),
                environment=environment,
            )
            for name in names
        ]
        try:
            wait_until(lambda: set(names) <= self.names())
            yield
        finally:
            stop(processes)
            wait_until(lambda: not set(names) & self.names() or self.scheduler.poll() is not None)

    def names(self) -> set[str]:
        """Names of the workers that the scheduler knows now."""
        if self.scheduler.poll() is not None:
            return set()
        with Client(self.address, set_as_default=False) as client:
            return {info["name"] for info in client.scheduler_info(n_workers=-1)["workers"].values()}

    def is_idle(self) -> bool:
        """Whether no worker has anything to do."""

        def executing(dask_worker: Any) -> int:  # within this function, so that workers need not import it
            return len(dask_worker.state.executing)

        with Client(self.address, set_as_default=False) as client:
            return not any(client.processing().values()) and not any(client.run(executing).values())

    def close(self) -> None:
        """End the scheduler."""
        stop([self.scheduler])
        self._log.close()

    def order(self, name: str, content: str = "") -> None:
        """Leave an order for the workers."""
        (self.control / name).write_text(content)

    def withdraw_orders(self) -> None:
        """Forget orders and notes."""
        for file in self.control.iterdir():
            file.unlink()

    def committed(self) -> list[tuple[str, int, str]]:
        """(stage, shard, worker's name) of the commits since `withdraw_orders`."""
        notes = self.control / "notes"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [(stage, int(shard), name) for stage, shard, name in (line.split() for line in lines)]


@contextmanager
def dask_processes(folder: Path, environment: Mapping[str, str] = {}) -> Iterator[DaskProcesses]:
    """A scheduler without workers, on a free port of loopback."""
    processes = DaskProcesses(folder, environment)
    try:
        yield processes
    finally:
        processes.close()


def stop(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Ask processes to end, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes to hold within three minutes."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


# Within a worker


def dask_setup(worker: Any) -> None:
    """Called by Dask as the worker starts: hear of every commit, and obey orders."""
    from microtome.storage.commits import StageCommits

    control = Path(os.environ[CONTROL])
    original = StageCommits.commit

    def commit(self: StageCommits, shard: int, *arguments: Any, **named: Any) -> None:
        if (control / "pause").exists():
            time.sleep(PAUSE_SECONDS)
        _die_if_told(control / f"kill-{self.stage}-{shard}", "before")
        original(self, shard, *arguments, **named)
        with (control / "notes").open("a") as notes:
            notes.write(f"{self.stage} {shard} {worker.name}\n")
        _die_if_told(control / f"kill-{self.stage}-{shard}", "after")

    StageCommits.commit = commit  # type: ignore[method-assign]
    if pretended := os.environ.get(PRETEND_VERSION):
        importlib.metadata.version = lambda name: pretended


def _die_if_told(order: Path, moment: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        told = order.read_text()
        if told == moment:
            order.unlink()
        if told in (moment, "always"):
            os.kill(os.getpid(), signal.SIGKILL)
