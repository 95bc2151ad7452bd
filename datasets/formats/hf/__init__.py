"""`hf:PLACE`: datasets of HuggingFace's `datasets` with columns of images and masks; needs the extra microtome[hf].

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.hf.reader import HfDataset

__all__ = ["HfDataset"]
