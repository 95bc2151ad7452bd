"""The built-in dataset `scenes`: procedural, natural enough to learn from, labelled without a doubt."""

from microtome.datasets.scenes.compose import SceneTruth, Thing
from microtome.datasets.scenes.concepts import SCENE_KINDS
from microtome.datasets.scenes.dataset import GENERATOR, ScenesDataset

__all__ = ["GENERATOR", "SCENE_KINDS", "SceneTruth", "ScenesDataset", "Thing"]
