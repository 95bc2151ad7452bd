"""`broden:PATH`: the Broadly and Densely Labeled Dataset of network dissection (Bau et al. 2017), and data like it.

`reader` has the layout and what becomes of it.
"""

from microtome.datasets.formats.broden.reader import BrodenDataset

__all__ = ["BrodenDataset"]
