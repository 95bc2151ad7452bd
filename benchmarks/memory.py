"""Peak memory of the audit process against the number of samples: it should hardly grow."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = "builtin:scenes-cnn"
LAYERS = "block?"


def run(quick: bool) -> dict[str, Any]:
    """Peak resident memory of whole `microtome audit` processes."""
    counts = (200, 2_000) if quick else (2_000, 20_000)
    peaks = {count: peak_megabytes(count) for count in counts}
    first = peaks[counts[0]]
    return {
        "command": f"microtome audit {MODEL} scenes:COUNT --layers {LAYERS!r}",
        "memory": [{"samples": n, "peak MB": peak, "against the first": peak / first} for n, peak in peaks.items()],
    }


def peak_megabytes(samples: int) -> float:
    """Peak resident set of one audit process over `samples` scenes, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "microtome.dissect.cli", "audit", MODEL, f"scenes:{samples}"]
        process = subprocess.Popen([*command, "--layers", LAYERS, "--out", str(Path(folder) / "run")])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the audit of {samples} scenes ended with exit code {process.returncode}")
    return usage.ru_maxrss / 1e3
