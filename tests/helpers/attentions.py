"""Small vision transformers whose attention is computed in every way in which people compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome.dissect.models import Model, Preprocess

WIDTH, HEADS, PATCH, SIZE = 24, 4, 8, 40
FORMS = (
    *("explicit", "module softmax", "einsum", "bmm", "baddbmm", "fused", "scaled", "multihead", "biased"),
    *("fused bias", "masked", "causal", "grouped", "talking", "einsum tokens"),
)


class Attention(nn.Module):
    """Self-attention (B, L, WIDTH) in one of FORMS; `weights` are its maps, written as plainly as can be."""

    def __init__(self, form: str, tokens: int) -> None:
        super().__init__()
        self.form = form
        groups = 2 if form == "grouped" else HEADS
        self.q, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, groups * WIDTH // HEADS) for _ in "kv")
        self.softmax = nn.Softmax(-1)
        self.before, self.after = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)
        self.bias = nn.Parameter(torch.randn(1, HEADS, tokens, tokens))
        self.scale = 0.7 if form == "scaled" else (WIDTH // HEADS) ** -0.5

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, HEADS or groups, L, d)."""
        q, k, v = (linear(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return q, k, v

    def weights(self, x: Tensor) -> Tensor:
        """The attention maps (B, HEADS, L, L)."""
        q, k, _ = self.heads(x)
        k = k.repeat_interleave(HEADS // k.shape[1], 1)
        tokens = x.shape[1]
        out = torch.zeros(len(x), HEADS, tokens, tokens)
        for image in range(len(x)):
            logits = torch.stack([q[image, head] @ k[image, head].T * self.scale for head in range(HEADS)])
            if self.form in ("biased", "fused bias", "baddbmm"):
                logits = logits + self.bias[0]
            if self.form == "talking":
                logits = torch.einsum("gh,hij->gij", self.before.weight, logits) + self.before.bias[:, None, None]
            if self.form in ("masked", "causal"):
                logits = logits.masked_fill(~self.mask(tokens), -torch.inf)
            exp = (logits - logits.amax(-1, keepdim=True)).exp()
            out[image] = exp / exp.sum(-1, keepdim=True)
        return out

    def mask(self, tokens: int) -> Tensor:
        """(L, L) bool: what may be attended to."""
        lower = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        return lower if self.form == "causal" else lower.flip(1) | torch.eye(tokens, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixed(x, *self.heads(x))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def mixed(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        form = self.form
        if form in ("fused", "scaled", "fused bias", "masked", "causal", "grouped"):
            mask = {"fused bias": self.bias, "masked": self.mask(x.shape[1])}.get(form)
            more = {"enable_gqa": True} if form == "grouped" else {}
            scale = self.scale if form == "scaled" else None
            return F.scaled_dot_product_attention(q, k, v, mask, is_causal=form == "causal", scale=scale, **more)
        if form == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
            return torch.einsum("bhij,bhjd->bhid", torch.softmax(scores, dim=-1), v)
        if form == "einsum tokens":  # heads behind tokens
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            scores = torch.einsum("bihd,bjhd->bhij", q, k) * self.scale
            return torch.einsum("bhij,bjhd->bihd", torch.softmax(scores, dim=-1), v).transpose(1, 2)
        if form in ("bmm", "baddbmm"):
            q, k, v = (part.flatten(0, 1) for part in (q, k, v))
            if form == "bmm":
                scores = torch.bmm(q * self.scale, k.transpose(1, 2))
            else:
                scores = torch.baddbmm(self.bias.expand(len(x), -1, -1, -1).flatten(0, 1), q * self.scale, k.mT)
            return torch.bmm(F.softmax(scores, dim=-1), v).unflatten(0, (len(x), HEADS))
        scores = q @ k.transpose(-2, -1) * self.scale
        if form == "biased":
            scores = scores + self.bias
        if form == "talking":
            shown = self.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
            return torch.matmul(self.after(shown.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), v)
        return (self.softmax(scores) if form == "module softmax" else scores.softmax(dim=-1)) @ v


class MultiHead(nn.Module):
    """The same through nn.MultiheadAttention, which is the layer `attn.inner`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def weights(self, x: Tensor) -> Tensor:
        shown: Tensor = self.inner(x, x, x, need_weights=True, average_attn_weights=False)[1]
        return shown

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


class Block(nn.Module):
    def __init__(self, form: str, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn = MultiHead() if form == "multihead" else Attention(form, tokens)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm(x))
        out: Tensor = x + self.mlp(x)
        return out


class TinyViT(nn.Module):
    """Patches behind (or before) `prefix` tokens without a place, `depth` blocks, a head on the first token."""

    def __init__(self, form: str = "explicit", *, prefix: int = 1, depth: int = 3, behind: bool = False) -> None:
        super().__init__()
        self.prefix, self.behind = prefix, behind
        tokens = (SIZE // PATCH) ** 2 + prefix
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.extra = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, tokens, WIDTH) * 0.1)
        self.blocks = nn.ModuleList([Block(form, tokens) for _ in range(depth)])
        self.head = nn.Linear(WIDTH, 5)

    def tokens(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        extra = self.extra.expand(len(images), -1, -1)
        return torch.cat([patches, extra] if self.behind else [extra, patches], 1) + self.positions

    def forward(self, images: Tensor) -> Tensor:
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x[:, 0])
        return out

    def inputs(self, images: Tensor) -> list[Tensor]:
        """What each block's attention is given: (B, L, WIDTH)."""
        x, found = self.tokens(images), []
        for block in self.blocks:
            found.append(block.norm(x))
            x = block(x)
        return found

    def maps(self, images: Tensor) -> list[Tensor]:
        """Each block's attention maps (B, HEADS, L, L)."""
        with torch.no_grad():
            return [block.attn.weights(x) for block, x in zip(self.blocks, self.inputs(images), strict=True)]

    @property
    def places(self) -> slice:
        """Which tokens are patches."""
        count = (SIZE // PATCH) ** 2
        return slice(0, count) if self.behind else slice(self.prefix, self.prefix + count)


def tiny(form: str = "explicit", *, prefix: int = 1, depth: int = 3, behind: bool = False) -> tuple[Model, TinyViT]:
    """A model, and the network in it, with weights of their own from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = TinyViT(form, prefix=prefix, depth=depth, behind=behind).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.4)
    prepared = Preprocess(size=(SIZE, SIZE), resize=None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Model(spec="tests:vit", module=net, preprocess=prepared), net


def attention_name(form: str, block: int) -> str:
    """The layer that is the attention of a block."""
    return f"blocks.{block}.attn.inner" if form == "multihead" else f"blocks.{block}.attn"
