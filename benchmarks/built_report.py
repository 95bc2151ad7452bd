"""Build the report of a made-up run (made_run.py) in a process of its own, without torch; prints what it took.

python -m benchmarks.built_report RUN IMAGES
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.build import build_report
from microtome.reports.source import ReadImage
from microtome.storage.run import Run


def images(folder: Path) -> ReadImage:
    """Reads samples: each shows one of the JPEGs in `folder`, which is read from the file and decoded."""
    files = sorted(folder.iterdir())

    def read(sample: int) -> NDArray[np.uint8]:
        image = cv2.imread(str(files[sample % len(files)]))
        return np.asarray(image, np.uint8)[..., ::-1]

    return read


def memory(name: str) -> float:
    """MB of this process now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def main() -> None:
    """One report; a JSON object on the last line."""
    run, read = Run.open(sys.argv[1]), images(Path(sys.argv[2]))
    begun, used, before = time.perf_counter(), time.process_time(), memory("VmRSS")
    index = build_report(run, read)
    found = {
        "samples": run.plan.samples,
        "seconds": time.perf_counter() - begun,
        "CPU s": time.process_time() - used,
        "load": os.getloadavg()[0],
        "MB before": before,
        "peak MB": memory("VmHWM"),
        "index": index,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
