"""A loaded model: the module to run, how to feed it, and a fingerprint that tells it from any other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.dissect.models.generators import GeneratorInfo, Latents, as_input, draw_latents, run_module
from microtome.dissect.models.preprocess import Preprocess

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class TokenHints:
    """What the user says of token streams whose positions cannot be followed: grid (h, w), and how many prefix tokens
    (class tokens, registers) stand before the patches; None = not said."""

    grid: tuple[int, int] | None = None
    prefix: int | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A vision network ready to be dissected.

    spec: as the user gave it; module: in eval mode, without compile or parallel wrappers; class_names: one a logit,
    or empty; trained: False for random weights; weights: where they come from, in words; fingerprint: hexadecimal
    sha256 (see `fingerprint`), empty when loaded for inspection only; tokens: what the user says of token streams;
    channels: of its images, 3 but for a bare module that was given others; generator: of a generator how it is
    called, None for a network that answers about images. `preprocess` of a generator leaves its images as they are.
    """

    spec: str
    module: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] = ()
    trained: bool = True
    weights: str = ""
    fingerprint: str = ""
    tokens: TokenHints = TokenHints()
    channels: int = 3
    generator: GeneratorInfo | None = None

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(p.numel() for p in self.module.parameters())

    def placeholder(self) -> Tensor:
        """The tensor whose dtype and device inputs must have (empty)."""
        return placeholder_of(self.module)

    def noise(self, batch: int = 1, *, seed: int = 0) -> Tensor:
        """A batch of normal noise with the model's input shape, dtype and device: (batch, channels, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.channels, *self.preprocess.size, generator=generator).to(self.placeholder())

    def inputs(self, batch: int = 1, *, seed: int = 0) -> Latents:
        """What the module may be called with, for a try: noise as images; of a generator the latents of `batch` seeds.

        Tensors, the batch first, in the model's dtype and on its device.
        """
        made = self.generator
        if made is None:
            return (self.noise(batch, seed=seed),)
        if made.latent_shape is not None:
            seeds = range(seed * batch, (seed + 1) * batch)
            return as_input(draw_latents(self.module, made.latent_shape, made.classes, seeds), self.placeholder())
        size = self.preprocess.size if made.inputs is None else made.inputs.size
        noise = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
        return as_input((noise,), self.placeholder())

    def run(self, inputs: Latents) -> Any:
        """What the module gives for `inputs`; noise that a generator draws is each sample's own (`noise.py`)."""
        return run_module(self.module, inputs, draws=self.generator is not None and self.generator.draws)


def placeholder_of(module: nn.Module) -> Tensor:
    """The tensor whose dtype and device inputs of `module` must have (empty)."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return torch.empty(0)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, memory_format: torch.memory_format) -> Tensor:
    """uint8 RGB (B, H, W, 3) as networks take it, (B, 3, H, W) float32; mean, std: (1, 3, 1, 1), of [0, 1]."""
    batch = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format)
    return batch.div_(255.0).sub_(mean).div_(std)


def fingerprint(module: nn.Module, preprocess: Preprocess, generator: GeneratorInfo | None = None) -> str:
    """sha256 over the repr of the architecture, the preprocessing, and all parameters and buffers (name, type, bytes);
    of a generator also over what it states.

    Memory addresses inside the repr are left out, so that the same model has the same fingerprint in every process.
    Reads each tensor once: about 0.1 s for 100 MB.
    """
    settings = preprocess.to_dict() | ({} if generator is None else generator.to_dict())
    return digest_of(module, json.dumps(settings, sort_keys=True))


def digest_of(module: nn.Module, settings: str) -> str:
    """sha256 over the repr of the architecture, `settings`, and all parameters and buffers, as `fingerprint` has it."""
    digest = hashlib.sha256()
    digest.update(_ADDRESS.sub("", repr(module)).encode())
    digest.update(settings.encode())
    for name, tensor in _tensors(module):
        digest.update(f"\0{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
