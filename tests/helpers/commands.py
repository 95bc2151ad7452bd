"""Microtome's command line in processes of their own that start at once, and that may be killed.

A process with everything imported waits for orders and forks for each: what runs is a whole process, with the
command line's messages and exit codes, without the seconds that importing torch takes.

with Commands(folder) as commands:
    audit = commands.start(["audit", ...])
    audit.kill()
    commands.run(["audit", "--resume", ...]).code
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MODULES = (
    "microtome.dissect.audit.cluster",
    "microtome.dissect.audit.extend",
    "microtome.dissect.audit.pipeline",
    "microtome.dissect.audit.repair",
    "microtome.dissect.audit.status",
    "microtome.dissect.audit.stages.map",
    "microtome.dissect.cli",
    "microtome.dissect.embedding.maps",
    "microtome.dissect.query",
    "microtome.reports",
    "microtome.storage.buckets",
    "microtome.storage.stores",
    "microtome.reports.build",
    "microtome.reports.maps.build",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "torch._dynamo",
)
PATIENCE = 120.0
SECONDS_BETWEEN_LOOKS = 0.005


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: by that signal), and what it said on stderr and stdout."""

    code: int
    said: str

    @property
    def last_line(self) -> str:
        """The last line on stderr and stdout that says anything."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Command:
    """One process at work."""

    def __init__(self, commands: Commands, pid: int, output: Path) -> None:
        self._commands, self.pid, self._output = commands, pid, output
        self._code: int | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self._code is None:
            self._code = self._commands.ask({"poll": self.pid})
        return self._code is None

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> Ended:
        """SIGKILL, as the kernel does it that runs out of memory."""
        if self.running:
            self.send(signal.SIGKILL)
        return self.wait()

    def wait(self, until: Callable[[], bool] = lambda: False) -> Ended:
        """Wait for its end, or until something holds."""
        deadline = time.monotonic() + PATIENCE
        while self.running and not until():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"still at work after {PATIENCE:.0f} s:\n{self.said}")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return Ended(1 << 20 if self._code is None else self._code, self.said)


class Commands:
    """Starts processes; none outlives the `with` block, nor this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str] = {}) -> Command:
        """Start `microtome ARGUMENTS` with these variables beside those of this process."""
        self._count += 1
        output = self._folder / f"{self._count:03d}.txt"
        output.touch()
        order = {"start": list(arguments), "environment": {**os.environ, **environment}, "output": str(output)}
        return Command(self, self.ask(order), output)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str] = {}) -> Ended:
        """The same, waiting for the end."""
        return self.start(arguments, environment).wait()

    def ask(self, order: dict[str, Any]) -> Any:
        """Give an order to the process that forks."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._asking:
            self._server.stdin.write(json.dumps(order) + "\n")
            return json.loads(self._server.stdout.readline())


# Within the process that forks


def _serve() -> None:
    for module in MODULES:
        importlib.import_module(module)
    _warm()
    codes: dict[int, int | None] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            pid = os.fork()
            if pid == 0:
                _become(order)
            codes[pid] = None
            answer: int | None = pid
        else:
            pid = order["poll"]
            if codes[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                codes[pid] = os.waitstatus_to_exitcode(status) if ended else None
            answer = codes[pid]
        print(json.dumps(answer), flush=True)  # noqa: T201
    for pid, code in codes.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _warm() -> None:
    """Compile the templates, and load what numba has compiled already of the kernels: once for all that are forked."""
    from numba.core.dispatcher import Dispatcher

    from microtome.reports.pages import environment

    for file in resources.files("microtome.reports").joinpath("templates").iterdir():
        environment().get_template(file.name)
    ours = [module for name, module in sys.modules.items() if name.startswith("microtome.")]
    for kernel in {each for module in ours for each in vars(module).values() if isinstance(each, Dispatcher)}:
        for signature, *_ in kernel._cache._cache_file._load_index():
            kernel.compile(signature)


def _become(order: dict[str, Any]) -> None:
    """Be `microtome ARGUMENTS`; dies with the process that forked it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(order["environment"])
    output = os.open(order["output"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    code = 1
    try:
        from microtome.dissect.cli import main

        main(order["start"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
