"""`voc:PATH`: PASCAL VOC with its class masks, and with Pascal-Context and Pascal-Part where they are present.

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.voc.reader import VocDataset

__all__ = ["VocDataset"]
