"""Where the units of a layer are taken from: a tensor of a module's output, or something inside its attention."""

from __future__ import annotations

from dataclasses import dataclass, field

from microtome.dissect.models.layouts import Layout

HEADS, MEAN_HEADS, ROLLOUT, QUERIES, KEYS, VALUES = ATTENTION_KINDS = ("heads", "heads-mean", "rollout", "q", "k", "v")
"""Kinds of units inside an attention module: each head's map of the class token's attention, of all queries' mean
attention, the rollout (one unit), and the features of queries, keys and values."""

CLASS_TOKEN = "cls"
"""Kind of the units that are the features of a layer's class token."""


@dataclass(frozen=True)
class Inside:
    """Which attention of a module's call is meant, and how to take `kind` from it.

    fused: through scaled_dot_product_attention number `scores`; else written out, with products number `scores` and
    `mix`. row: the query that is the class token; output: how heads lie in what the attention gives, None where that is
    not known; before: the places of the attentions that a rollout begins with, in order.
    """

    fused: bool
    scores: int
    mix: int
    row: int
    output: Layout | None
    before: tuple[Place, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Place:
    """One place in a forward pass. part: which tensor of the module's output; inside: set where `kind` is one of
    ATTENTION_KINDS; kind: one of these, CLASS_TOKEN, or empty."""

    module: str
    ordinal: int
    layout: Layout
    kind: str = ""
    part: int = 0
    inside: Inside | None = None

    @property
    def call(self) -> tuple[str, int]:
        """The module's name, and which of its calls."""
        return self.module, self.ordinal
