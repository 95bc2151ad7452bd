"""Networks that come trained: a convolutional classifier and a small vision transformer, both of `scenes`."""

from microtome.dissect.builtin.cnn import ScenesCNN, scenes_cnn
from microtome.dissect.builtin.vit import ScenesViT, scenes_vit

__all__ = ["ScenesCNN", "ScenesViT", "scenes_cnn", "scenes_vit"]
