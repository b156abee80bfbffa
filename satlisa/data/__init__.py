"""From a dataset's name to samples."""
