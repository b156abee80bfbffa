"""Evaluate a model on samples of every task of a dataset: REPORT.md, results.json and pictures."""

import sys

from satlisa.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
