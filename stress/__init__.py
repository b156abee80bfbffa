"""Long tests of what is promised: `python -m stress`."""
