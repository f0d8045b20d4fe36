"""Scribbles and features to a linear classifier."""
