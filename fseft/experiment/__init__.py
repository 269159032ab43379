"""Settings, checkpoints, devices and reporters that every training run shares."""
