"""Networks and pre-trained models of nnU-Net v2, nnssl and STU-Net for fseft."""
