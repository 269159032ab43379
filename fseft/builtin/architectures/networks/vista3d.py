"""The network of architecture `vista3d`: MONAI's image encoder and a pointwise head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.networks.nets import SegResNetDS2
from monai.networks.nets.vista3d import ClassMappingClassify
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class VISTA3DNetwork(nn.Module):
    """The automatic branch of VISTA3D, with one row of the head in place of each class prompt.

    Attributes have the names of public checkpoints.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        width: Channels at full resolution.
        blocks_down: Residual blocks on each encoder level, the finest first.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, blocks_down: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.image_encoder = SegResNetDS2(
            3, width, in_channels, width, norm="instance", blocks_down=blocks_down
        )
        # MONAI's class only uses the number of levels of the decoder for clicked points.
        levels = len(self.image_encoder.up_layers_auto)
        self.image_encoder.up_layers = nn.ModuleList(nn.Identity() for _ in range(levels))
        classifier = ClassMappingClassify(n_classes=1, feature_size=width, use_mlp=False)
        self.class_head = nn.ModuleDict({"image_post_mapping": classifier.image_post_mapping})
        self.head = nn.Conv3d(width, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in, i, j, k) to logits (B, out, i, j, k)."""
        _, decoded = self.image_encoder(x, with_point=False)
        logits: Tensor = self.head(self.class_head["image_post_mapping"](decoded))
        return logits
