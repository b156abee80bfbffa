"""Ask Satellite Omni LISA about one image: from Python, a notebook or the command line.

from inference import load_model, generate_text, generate_segmentation
python inference.py --model_dir D --image sat.jpg --prompt "Segment buildings" --output_mask mask.png
"""

import sys
from pathlib import Path

# Notebooks load this file by its path from anywhere: the package lies beside it.
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from satlisa.cli.inference import main
from satlisa.inference.api import generate_instances, generate_segmentation, generate_text, load_model

__all__ = ["generate_instances", "generate_segmentation", "generate_text", "load_model"]

if __name__ == "__main__":
    sys.exit(main())
