"""The network of architecture `vista3d`: MONAI's image encoder and class head, with rows in place of class prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.networks.nets import SegResNetDS2
from monai.networks.nets.vista3d import ClassMappingClassify
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class VISTA3DNetwork(nn.Module):
    """(B, in, i, j, k) -> logits (B, out, i, j, k); attributes are named as in public checkpoints."""

    def __init__(
        self, in_channels: int, out_channels: int, width: int, blocks_down: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.image_encoder = SegResNetDS2(
            3, width, in_channels, width, norm="instance", blocks_down=blocks_down
        )
        # Of the decoder for clicked points MONAI's class only asks how many levels it has.
        levels = len(self.image_encoder.up_layers_auto)
        self.image_encoder.up_layers = nn.ModuleList(nn.Identity() for _ in range(levels))
        mapping = ClassMappingClassify(
            n_classes=1, feature_size=width, use_mlp=False
        ).image_post_mapping
        self.class_head = nn.ModuleDict({"image_post_mapping": mapping})
        self.head = nn.Conv3d(width, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Encoder, automatic decoder, mapping, rows."""
        _, decoded = self.image_encoder(x, with_point=False)
        logits: Tensor = self.head(self.class_head["image_post_mapping"](decoded))
        return logits
