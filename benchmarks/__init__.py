"""Measurements of speed and memory: `make bench`, or `python -m benchmarks [NAME ...] [--quick]` in the root folder.

Every module here with a `run(quick: bool) -> dict` is a benchmark; its rows are printed and written to
build/bench/NAME.json.
"""
