"""How many of the true neighbours a graph is said to have."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.dissect.embedding import maps
from microtome.dissect.embedding.graph import Graph, neighbor_graph
from microtome.dissect.embedding.vectors import ArrayVectors


def test_the_share_that_was_lost_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "EXACT_ROWS", 100)
    vectors = ArrayVectors(np.random.default_rng(0).normal(size=(900, 6)).astype(np.float32))
    graph = neighbor_graph(vectors, 20)
    assert maps.graph_recall(vectors, graph, 1) == 1.0
    lossy = Graph(graph.indices[:, ::2], graph.distances[:, ::2])  # ten, of which five are among the nearest ten
    assert maps.graph_recall(vectors, lossy, 1) == pytest.approx(0.5, abs=0.01)
    assert maps._missed(0.5, lossy) == [
        "Of the 10 nearest neighbours of a point, which draw it, the search found 50 % (measured on 200 points)."
    ]
    assert maps._missed(0.95, lossy) == []
