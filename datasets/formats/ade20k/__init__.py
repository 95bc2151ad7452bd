"""`ade20k:PATH`: ADE20K as published, either release; see `parsing` and `full` for their layouts.

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.ade20k.reader import open_ade20k

__all__ = ["open_ade20k"]
