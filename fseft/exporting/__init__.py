"""Export of adapted networks to the formats of other tools."""
