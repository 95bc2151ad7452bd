"""`coco:PATH`: COCO's panoptic, instance and stuff annotations, and other data sets in the same form.

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.coco.reader import CocoDataset

__all__ = ["CocoDataset"]
