"""Run the benchmarks: all of them, or those named."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

import benchmarks
from benchmarks.timing import machine, print_table

OUT = Path(__file__).resolve().parent.parent / "build" / "bench"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="small inputs, few repeats")
    options = parser.parse_args()
    modules = {}
    for info in pkgutil.iter_modules(benchmarks.__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"benchmarks.{info.name}")
            if hasattr(module, "run"):
                modules[info.name] = module
    unknown = sorted(set(options.names) - set(modules))
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; known: {', '.join(modules)}")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in options.names or modules:
        result = {"machine": machine(), "quick": options.quick} | modules[name].run(options.quick)
        for title, rows in result.items():
            if isinstance(rows, list):
                print_table(f"{name}: {title}", rows)
        path = OUT / f"{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
