"""A small vision transformer (Dosovitskiy et al., 2021) that classifies scenes, its modules named as timm names them.

Pre-norm blocks, a class token, learned positions. Queries, keys and values come from one linear layer (`attn.qkv`)
and attention goes through `scaled_dot_product_attention`.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome.datasets.scenes import SCENE_KINDS
from microtome.dissect.builtin.cnn import MEAN, SIZE, STD
from microtome.dissect.builtin.storing import load_weights

PATCH: Final = 8
WIDTH: Final = 128
DEPTH: Final = 6
HEADS: Final = 4
MLP_RATIO: Final = 3
KEPT: Final = 0.5
"""Share of the patch tokens that take part in a training step (Liu et al., 2023, "PatchDropout"); all do in eval."""


class PatchEmbed(nn.Module):
    """(B, 3, H, W) to (B, H/8 * W/8, WIDTH) tokens, row by row, through three strided convolutions.

    A stem of convolutions trains far faster than one linear layer a patch (Xiao et al., 2021, "Early convolutions
    help transformers see better"); a token sees 15 x 15 pixels about its patch of 8 x 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU()
        self.proj = nn.Conv2d(64, WIDTH, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.norm2(self.conv2(x)))
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, WIDTH) tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class Mlp(nn.Module):
    """Two linear layers about a GELU, token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, MLP_RATIO * WIDTH)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(MLP_RATIO * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention, then the MLP, each on normalised tokens and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ScenesViT(nn.Module):
    """(B, 3, 112, 112) normalised RGB to (B, 12) logits: 1 class token and 14 x 14 patch tokens of 128 features."""

    num_prefix_tokens: int
    preprocess: dict[str, object]
    class_names: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        grid = SIZE // PATCH
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(SCENE_KINDS))
        self.num_prefix_tokens = 1
        self.preprocess = {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
        self.class_names = SCENE_KINDS
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x) + self.pos_embed[:, 1:]
        if self.training:
            kept = torch.randperm(patches.shape[1])[: round(KEPT * patches.shape[1])]
            patches = patches[:, kept]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([first, patches], dim=1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def scenes_vit() -> ScenesViT:
    """The trained transformer in eval mode, weights from the package. See TRAINING.md."""
    model = ScenesViT()
    model.load_state_dict(load_weights("scenes-vit"))
    return model.eval()
