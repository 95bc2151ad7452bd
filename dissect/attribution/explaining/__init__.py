"""Images explained by several methods at once: what `microtome explain` does, as objects."""
