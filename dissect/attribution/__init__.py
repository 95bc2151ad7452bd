"""Explanations of single images: which pixels a class or a unit answers to, and what a layer holds.

Every method has one signature, `method(model, images, target, layer)`, listed in `methods.METHODS`.
"""
