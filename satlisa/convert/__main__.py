"""`python -m satlisa.convert`."""

import sys

from satlisa.convert.command import main

sys.exit(main())
