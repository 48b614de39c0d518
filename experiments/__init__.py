"""Experiments that measure when hyperspherical energy helps: `python -m experiments --help`."""
