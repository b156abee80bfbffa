"""Long tests of docs/guarantees.md: `python -m stress`."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported: no progress bars
