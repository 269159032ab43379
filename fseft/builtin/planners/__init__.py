"""Planners of the grid."""
