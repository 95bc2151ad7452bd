"""Neighbours that the workers of a cluster look for are those that this process finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.compare import differences
from helpers.dask_processes import dask_processes

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.stages import map as stage
from microtome.dissect.audit.stages import near
from microtome.dissect.embedding import graph, maps
from microtome.storage.run import Run


def config_of(out: Path, **changes: str) -> AuditConfig:
    return AuditConfig(
        model="builtin:scenes-cnn", dataset="scenes:60", layers=("block2",), out=out, shard_samples=16, **changes
    )


def test_a_cluster_finds_the_same_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "EXACT_ROWS", 1000)  # its recall, of more vectors than these, has a test of its own
    monkeypatch.setattr(graph, "EXACT_ROWS", 40)
    monkeypatch.setattr(stage, "FEWEST", 50)
    searched: list[int] = []
    search = near.ClusterSearch.__call__

    def counted(self: near.ClusterSearch, lists: object, k: int) -> object:
        searched.append(k)
        return search(self, lists, k)

    monkeypatch.setattr(near.ClusterSearch, "__call__", counted)
    run_audit(config_of(tmp_path / "threads"))
    assert not searched
    with dask_processes(tmp_path / "dask") as cluster, cluster.workers("one", "two"):
        run_audit(config_of(tmp_path / "cluster", cluster=cluster.address))
    assert len(searched) == 1
    assert differences(tmp_path / "threads", tmp_path / "cluster") == []
    run = Run.open(tmp_path / "cluster")
    assert not [key for key, _ in run.place.list() if "map.index" in key or near.PREFIX in key]
    assert np.isfinite(run.layer_table("block2", "map")["x"]).all()
