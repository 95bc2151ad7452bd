"""Asking a finished run: `open_run(path).query("concept=car iou>0.1")`."""

from microtome.dissect.query.dissection import Dissection, open_run

__all__ = ["Dissection", "open_run"]
