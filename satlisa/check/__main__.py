"""`python -m satlisa.check`."""

import sys

from satlisa.check.command import main

sys.exit(main())
