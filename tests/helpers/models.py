"""Small networks with the habits of real ones, for tests of loading, naming, capturing and measuring."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.dissect.models import Model, Preprocess


def as_model(module: nn.Module, size: int | tuple[int, int] = 32, *, seed: int = 0) -> Model:
    """A Model around `module` with parameters drawn anew from `seed`, for square or (H, W) inputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    pair = (size, size) if isinstance(size, int) else size
    prepared = Preprocess(size=pair, resize=None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Model(spec="tests:model", module=module.eval(), preprocess=prepared, fingerprint="0" * 64)


class InPlace(nn.Module):
    """A convolution whose output is changed in place, three times over, by what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x += 1
        x.mul_(2)
        return self.head(x.mean((2, 3)))


class Reused(nn.Module):
    """One ReLU called three times, at two sizes; an alias; a module and a list that are never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.skip = nn.Identity()
        self.alias = self.second
        self.unused = nn.Conv2d(3, 3, 1)
        self.parts = nn.ModuleList([nn.Sequential(nn.Conv2d(12, 4, 1), nn.ReLU())])
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.skip(self.drop(self.act(self.second(x))))
        x = self.parts[0](x)
        out: Tensor = self.head(self.act(x).mean((2, 3)))
        return out


@dataclass
class Outputs:
    """A dataclass output; the mask is no activation."""

    mask: Tensor
    maps: Tensor


class AsDict(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return OrderedDict(index=torch.arange(len(x)), maps=x * 2, pooled=x.mean((2, 3)))


class AsTuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[object, ...]:
        return (None, [x.flatten(2).transpose(1, 2), {"pooled": x.mean((2, 3))}], x * 3)


class AsDataclass(nn.Module):
    def forward(self, x: Tensor) -> Outputs:
        return Outputs(mask=x > 0, maps=x * 4)


class Odd(nn.Module):
    """Parts whose outputs are dicts, tuples, dataclasses, tokens, channels last, labels and not of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.as_dict = AsDict()
        self.as_tuple = AsTuple()
        self.as_dataclass = AsDataclass()
        self.tokens = nn.Linear(6, 7)
        self.last = nn.Linear(6, 6)
        self.last_norm = nn.LayerNorm(6)
        self.last_act = nn.GELU()
        self.windows = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.as_dict(x)
        self.as_tuple(x)
        self.as_dataclass(x)
        self.tokens(x.flatten(2).transpose(1, 2))
        self.last_act(self.last_norm(self.last(x.permute(0, 2, 3, 1))))
        self.windows(x.reshape(len(x) * 6, 1, *x.shape[2:]))
        return x.mean((2, 3))


class MixesTokens(nn.Module):
    """Linear layers over positions: 64 to 64, and 64 to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.mix = nn.Linear(64, 64)
        self.narrow = nn.Linear(64, 5)
        self.head = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.narrow(self.mix(self.conv(x).flatten(2))).mean(1))
        return out


class SqueezeExcite(nn.Module):
    """A convolution, then a gate over channels computed from the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.block = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.block(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))
        return out


class Detached(nn.Module):
    """Gradients do not pass its second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.no_grad():
            out: Tensor = self.second(x)
        return out
