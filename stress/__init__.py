"""Long tests of what is promised: `python -m stress`."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported: a report of a few lines, no progress bars
