"""Polygons, masks and SAM's padded frame."""
