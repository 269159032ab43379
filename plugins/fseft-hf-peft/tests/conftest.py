"""A tiny transformer with the width of SwinUNETR at full resolution."""

from __future__ import annotations

import re

import torch
from torch import nn

from fseft.learn.networks.base_architecture import BaseArchitecture
from fseft.plugin import ArchitectureSpec
from fseft.registration import Registration
from fseft.registry import registry

WIDTH = 48


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(1, 3)).chunk(
            3, -1
        )  # windows are three-dimensional, as in SwinUNETR
        return self.proj(torch.nn.functional.scaled_dot_product_attention(q, k, v)).view_as(x)


class Network(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.patch_embed = nn.Conv3d(in_channels, WIDTH, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.up = nn.ConvTranspose3d(WIDTH, 4, 2, stride=2)
        self.head = nn.Conv3d(4, out_channels, 1)

    def forward(self, x):
        x = self.patch_embed(x).movedim(1, -1)
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.up(x.movedim(-1, 1)))


class Tokens(BaseArchitecture):
    """Architecture `tokens`."""

    divisor = (2, 2, 2)
    minimum_patch = (4, 4, 4)
    roles = (
        ("patch_embed", "patch_embed"),
        (r"norm\d", "norm"),
        (r"attn\.qkv", "attn.qkv"),
        (r"attn\.proj", "attn.proj"),
        (r"mlp\.0", "mlp.fc1"),
        (r"mlp\.2", "mlp.fc2"),
        ("up", "conv.transposed"),
    )

    def build(self, *, in_channels, out_channels, config):  # noqa: ARG002
        return Network(in_channels, out_channels)

    def role(self, name, module):  # noqa: ARG002
        return next((role for pattern, role in self.roles if re.fullmatch(pattern, name)), None)

    def part_and_stage(self, network, name):  # noqa: ARG002
        return ("decoder", 0) if name == "up" else ("encoder", 1)


def pytest_configure():
    """Registers it, as if a package provided it."""
    spec = ArchitectureSpec(name="tokens", factory=f"{__name__}:Tokens")
    registry()._registrations["architecture", "tokens"] = [
        Registration(spec, registry().resolve("method", "hf-lora").source)
    ]
