"""Ask Satellite Omni LISA about one image: from Python, a notebook or the command line.

from inference import load_model, generate_text, generate_segmentation
python inference.py --model_dir D --image sat.jpg --prompt "Segment buildings" --output_mask mask.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # notebooks load this file by its path from anywhere

if __name__ == "__main__":
    from satlisa.cli.inference import main

    sys.exit(main())  # before torch is imported: --help does not wait for it

from satlisa import ask, generate_instances, generate_segmentation, generate_text, load_model, stream_text

__all__ = ["ask", "generate_instances", "generate_segmentation", "generate_text", "load_model", "stream_text"]
