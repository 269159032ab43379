"""Few-shot efficient fine-tuning of foundation models for volumetric medical image segmentation."""

__version__ = "0.1.0.dev0"
