"""Two real generators of faces and a real segmenter, where they are: laid out differently, and with in-place ReLUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.real import real_kit
from torch import Tensor

from microtome.dissect.audit import AuditConfig, run_audit
from microtome.dissect.generators.generator import generator_of_run
from microtome.storage.run import Run


@pytest.mark.parametrize(
    ("name", "layer", "package"),
    [("face_dcgan", "batchNorm3", "generateme"), ("digiface_dcgan", "main.7", "gan_face_generate")],
)
def test_a_generator_of_faces(name: str, layer: str, package: str, tmp_path: Path) -> None:
    """What is stored is what a hook that copies sees, and not what an in-place ReLU makes of it afterwards."""
    kit = real_kit(package, "mediapipe")
    config = AuditConfig(
        model=f"{kit}/generators.py:{name}",
        dataset="generated:12",
        segmenter=f"{kit}/segmenters.py:face_parts",
        layers=(layer,),
        tau=(0.05,),
        shard_samples=6,
        map=False,
        out=tmp_path / "run",
    )
    run_audit(config)
    run = Run.open(tmp_path / "run")
    assert run.info["label_size"] == [64, 64]
    assert run.info["model"]["generator"]["latent_shape"] == [100]
    generator = generator_of_run(run)
    seen: list[Tensor] = []
    module = generator.model.module.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    with handle, torch.no_grad():
        generator.model.run(generator.latents(range(12)))
    stored = run.arrays.read(f"layers/{run.layer(layer)['folder']}/activations", 0, 12).astype(np.float32)
    assert stored.min() < 0
    np.testing.assert_allclose(stored * run.layer(layer)["scale"], seen[0], rtol=2e-3, atol=2e-3)
    concepts = run.table("concepts").set_index("name")
    share = concepts["pixels"] / concepts["pixels"].sum()
    assert share["skin"] + share["hair"] > 0.25
    patches = run.layer_table(layer, "patches")
    assert set(patches["bottom"] - patches["top"]) <= set(range(4, 11))
