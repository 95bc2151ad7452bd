"""`webdataset:PATH`: samples in tar shards, millions of images without millions of files.

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.webdataset.reader import WebDataset

__all__ = ["WebDataset"]
