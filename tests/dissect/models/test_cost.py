"""The cost of an audit: sizes are exact, times are plausible, nothing is left changed."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.models import Reused, as_model

from microtome.dissect.models import describe_layers, measure_cost


def test_cost() -> None:
    model = as_model(Reused(), 16)
    infos = describe_layers(model, ["first", "act@2"])
    threads = torch.get_num_threads()
    cost = measure_cost(model, infos, batch=4, threads=1, device=torch.device("cpu"), n_batches=2)
    assert torch.get_num_threads() == threads
    assert cost.bytes_per_image == {"first": 6 * 16 * 16 * 2, "act@2": 12 * 8 * 8 * 2}
    assert cost.raw_bytes_per_image == 4608
    assert 0 < cost.seconds_per_image < 10
    assert cost.seconds(100) == pytest.approx(100 * cost.seconds_per_image)
    assert cost.disk_bytes(1000) == round(4608 * 1000 / cost.compression_ratio)
    assert json.loads(json.dumps(cost.to_dict()))["threads"] == 1
