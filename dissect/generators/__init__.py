"""Generators of images: opened, edited, their units ranked by what they cause."""
