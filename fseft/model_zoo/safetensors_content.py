"""Digest and metadata of safetensors files, which have no checksum."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def content_digest(manifest: str, tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of a manifest and of tensors with their names, types and shapes.

    Args:
        manifest: Text of the header.
        tensors: Tensors by name, of any shape and device.

    Returns:
        The digest in hexadecimal digits; the order of the tensors does not matter.
    """
    sha = hashlib.sha256(manifest.encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def with_sorted_metadata(content: bytes) -> bytes:
    """Returns a safetensors file with sorted metadata, so that equal adapters are equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header["__metadata__"].items()
    header["__metadata__"] = dict(sorted(metadata))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    start = len(text).to_bytes(8, "little")
    tensors = content[8 + size :]
    return start + text + tensors
