"""Images explained by several methods at once: what `microtome explain` does, as objects."""

from microtome.dissect.attribution.explaining.explainer import Explainer, explain_images, explainer_of
from microtome.dissect.attribution.explaining.results import Explained, Guess, Result

__all__ = ["Explained", "Explainer", "Guess", "Result", "explain_images", "explainer_of"]
