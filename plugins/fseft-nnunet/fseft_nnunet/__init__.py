"""nnU-Net's family for fseft: its networks, and pre-trained models with what their plans say."""
