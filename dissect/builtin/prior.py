"""From normal latents to the coarse code of a scene, place by place: a small causal transformer.

The values of each place come in groups, each from a mixture of normal distributions that the places and groups before
it determine (as in GIVT, Tschannen et al., 2024, who have one group). A draw is a function of its latents: one of each
group chooses the part of the mixture, the others the values, so the same latents give the same code. It was trained by
likelihood, on codes of an encoder.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLACES: Final = 16
"""Of the 4 x 4 grid, row by row."""
VALUES: Final = 24
"""Of the coarse code at each place."""
GROUPS: Final = 3
"""Of the values of each place, drawn one after the other."""
NOISES: Final = VALUES + GROUPS
"""Latents of each place: those of the values, and one for each group, which chooses a part of its mixture."""
ROWS: Final = 8
"""Latents that are drawn at once, at least."""
_GROUP: Final = VALUES // GROUPS
_WIDTH: Final = 128
_LAYERS: Final = 4
_HEADS: Final = 4
_PARTS: Final = 12
SPREAD: Final = 0.85
"""What deviations are multiplied by in a draw: below 1, codes are likelier and vary less."""
CHOICE: Final = 0.95
"""What the mixture's log-weights are divided by in a draw."""

Mixture = tuple[Tensor, Tensor, Tensor]
"""Log-weights (B, T, parts), means and log-deviations (B, T, parts, 8)."""
Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (B, heads, T, width / heads)."""


class CodePrior(nn.Module):
    """Latents (B, 432), standard normal, to coarse codes (B, 24, 4, 4).

    One layer to look at from outside: its matrices are plain parameters, used once for each place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read, self.read_bias = _normal(_WIDTH, VALUES, std=VALUES**-0.5), _zeros(_WIDTH)
        self.place, self.start = _normal(PLACES, _WIDTH), _zeros(_WIDTH)
        self.norms, self.shifts = nn.Parameter(torch.ones(2 * _LAYERS + 1, _WIDTH)), _zeros(2 * _LAYERS + 1, _WIDTH)
        self.qkv, self.qkv_bias = _normal(_LAYERS, 3 * _WIDTH, _WIDTH, std=0.05), _zeros(_LAYERS, 3 * _WIDTH)
        self.proj, self.proj_bias = _normal(_LAYERS, _WIDTH, _WIDTH), _zeros(_LAYERS, _WIDTH)
        self.up, self.up_bias = _normal(_LAYERS, 4 * _WIDTH, _WIDTH, std=0.05), _zeros(_LAYERS, 4 * _WIDTH)
        self.down, self.down_bias = _normal(_LAYERS, _WIDTH, 4 * _WIDTH), _zeros(_LAYERS, _WIDTH)
        outputs, known = _PARTS * (2 * _GROUP + 1), GROUPS - 1
        self.write, self.write_bias = _normal(GROUPS, outputs, _WIDTH), _zeros(GROUPS, outputs)
        self.known, self.known_bias = _normal(known, 2 * _WIDTH, _GROUP, std=0.2), _zeros(known, 2 * _WIDTH)
        self.inner, self.outer = _normal(known, 2 * _WIDTH, _WIDTH, std=0.05), _normal(known, _WIDTH, 2 * _WIDTH)

    def forward(self, z: Tensor) -> Tensor:
        # Products of matrices sum in another order for fewer rows; so many take hardly longer than one.
        rows = z.repeat(ROWS, 1)[:ROWS] if len(z) < ROWS else z
        return self._draw_all(rows)[: len(z)]

    def _draw_all(self, z: Tensor) -> Tensor:
        noise = z.view(len(z), PLACES, NOISES)
        x = self.start.expand(len(z), 1, _WIDTH)
        cache: Cache = []
        drawn: list[Tensor] = []
        for place in range(PLACES):
            drawn.append(self._place(self._through(x + self.place[place], cache), noise[:, place]))
            x = F.linear(drawn[-1], self.read, self.read_bias).unsqueeze(1)
        return torch.stack(drawn, 2).view(len(z), VALUES, 4, 4)

    def _place(self, x: Tensor, noise: Tensor) -> Tensor:
        """Values (B, 24) of one place by what the layers say of it, (B, 1, width), and its latents (B, 27)."""
        drawn: list[Tensor] = []
        for group in range(GROUPS):
            own = noise[:, group * _GROUP : (group + 1) * _GROUP]
            drawn.append(_draw(self._mixture(x, group), own, noise[:, VALUES + group, None]))
            if group < GROUPS - 1:
                x = self._knowing(x, group, drawn[-1].unsqueeze(1))
        return torch.cat(drawn, 1)

    def surprise(self, codes: Tensor, seen: Tensor) -> Tensor:
        """Nats (B, 16) at each place of codes (B, 24, 4, 4), by what comes before as `seen`, of the same shape."""
        values, told = codes.flatten(2).transpose(1, 2).float(), seen.flatten(2).transpose(1, 2)
        start = self.start.expand(len(codes), 1, _WIDTH)
        x = torch.cat([start, F.linear(told[:, :-1], self.read, self.read_bias)], 1) + self.place
        x = self._through(x, None)
        nats = torch.zeros(values.shape[:2], dtype=values.dtype, device=values.device)
        for group in range(GROUPS):
            chosen = slice(group * _GROUP, (group + 1) * _GROUP)
            nats = nats + _nats(self._mixture(x, group), values[:, :, chosen])
            if group < GROUPS - 1:
                x = self._knowing(x, group, told[:, :, chosen])
        return nats

    def _knowing(self, x: Tensor, group: int, values: Tensor) -> Tensor:
        """What is said of a place, (B, T, width), once the values (B, T, 8) of a group are known, too."""
        inner = F.linear(x, self.inner[group], self.known_bias[group]) + F.linear(values, self.known[group])
        return x + F.linear(F.gelu(inner), self.outer[group])

    def _through(self, x: Tensor, cache: Cache | None) -> Tensor:
        """The layers, for all places at once where there is no cache, or else for the next one."""
        for layer in range(_LAYERS):
            x = x + self._attend(self._normed(x, 2 * layer), layer, cache)
            inner = F.gelu(F.linear(self._normed(x, 2 * layer + 1), self.up[layer], self.up_bias[layer]))
            x = x + F.linear(inner, self.down[layer], self.down_bias[layer])
        return self._normed(x, 2 * _LAYERS)

    def _attend(self, x: Tensor, layer: int, cache: Cache | None) -> Tensor:
        batch, places, _ = x.shape
        flat = F.linear(x, self.qkv[layer], self.qkv_bias[layer])
        q, k, v = flat.view(batch, places, 3, _HEADS, _WIDTH // _HEADS).permute(2, 0, 3, 1, 4)
        if cache is not None and len(cache) > layer:
            k, v = torch.cat([cache[layer][0], k], 2), torch.cat([cache[layer][1], v], 2)
            cache[layer] = (k, v)
        elif cache is not None:
            cache.append((k, v))
        scores = q @ k.transpose(-1, -2) * (_WIDTH // _HEADS) ** -0.5
        if cache is None:
            scores = scores + torch.full((places, places), -1e4, dtype=scores.dtype, device=x.device).triu(1)
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, places, _WIDTH)
        return F.linear(mixed, self.proj[layer], self.proj_bias[layer])

    def _normed(self, x: Tensor, number: int) -> Tensor:
        return F.layer_norm(x, (_WIDTH,), self.norms[number], self.shifts[number])

    def _mixture(self, x: Tensor, group: int) -> Mixture:
        out = F.linear(x, self.write[group], self.write_bias[group])
        out = out.float() if out.dtype == torch.bfloat16 else out
        weights, means, spreads = torch.split(out, [_PARTS, _PARTS * _GROUP, _PARTS * _GROUP], dim=-1)
        shape = (*out.shape[:2], _PARTS, _GROUP)
        return weights, means.reshape(shape), spreads.reshape(shape).clamp(-4, 1)


def _nats(mixture: Mixture, values: Tensor) -> Tensor:
    """(B, T): how unlikely values (B, T, 8) are."""
    weights, means, spreads = mixture
    apart = (values.unsqueeze(2) - means) * (-spreads).exp()
    parts = (-0.5 * apart.square() - spreads - 0.5 * math.log(2 * math.pi)).sum(-1)
    return -torch.logsumexp(parts + weights.log_softmax(-1), -1)


def _draw(mixture: Mixture, noise: Tensor, choice: Tensor) -> Tensor:
    """Values (B, 8) of a group by its latents (B, 8) and the one (B, 1) that chooses a part."""
    weights, means, spreads = (part[:, 0] for part in mixture)
    reached = torch.softmax(weights / CHOICE, -1).cumsum(-1)
    part = (reached < torch.special.ndtr(choice)).sum(-1).clamp(max=_PARTS - 1)
    rows = torch.arange(len(part), device=part.device)
    return means[rows, part] + SPREAD * spreads[rows, part].exp() * noise


def _normal(*shape: int, std: float = 0.02) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * std)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))
