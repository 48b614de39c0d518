"""Finds the experiments of the checkout; tests are skipped where there are none."""

import sys
from pathlib import Path

# At the end of the path, so that tests import the installed package.
sys.path.append(str(Path(__file__).parents[2]))
