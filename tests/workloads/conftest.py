"""Finds what benchmarks and experiments share; tests are skipped where there is no checkout."""

import sys
from pathlib import Path

# At the end of the path, so that tests import the installed package.
sys.path.append(str(Path(__file__).parents[2]))
