"""Train Satellite Omni LISA. Settings are environment variables: `python train.py --help` lists them.

python train.py
PRESET=demo python train.py
BATCH_SIZE=1 GRAD_ACCUM=16 MAX_SAMPLES=100 python train.py
"""

import sys

from satlisa.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
