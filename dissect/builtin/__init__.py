"""Networks that come trained, all for `scenes`: two classifiers, a generator of such pictures, a segmenter."""

from microtome.dissect.builtin.cnn import ScenesCNN, scenes_cnn
from microtome.dissect.builtin.gan import ScenesGAN, scenes_gan
from microtome.dissect.builtin.segmenter import ScenesSegmenter, scenes_segmenter
from microtome.dissect.builtin.vit import ScenesViT, scenes_vit

__all__ = [
    "ScenesCNN",
    "ScenesGAN",
    "ScenesSegmenter",
    "ScenesViT",
    "scenes_cnn",
    "scenes_gan",
    "scenes_segmenter",
    "scenes_vit",
]
