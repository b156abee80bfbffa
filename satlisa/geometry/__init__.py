"""Polygons, masks and the frame of SAM, in numpy."""
