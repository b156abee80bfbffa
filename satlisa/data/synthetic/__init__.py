"""Satellite scenes that the package draws itself, as rows of a dataset."""
