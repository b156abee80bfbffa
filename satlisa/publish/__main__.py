"""`python -m satlisa.publish`."""

import sys

from satlisa.publish.command import main

sys.exit(main())
