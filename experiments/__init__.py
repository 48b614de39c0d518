"""Experiments that measure when hyperspherical energy helps: `python -m experiments --help`."""

import time

# When the program began, before it imported Keras.
BEGAN = time.monotonic()
