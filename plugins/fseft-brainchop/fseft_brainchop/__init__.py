"""The public MeshNet networks of brainchop, for T1 scans of the head."""
