"""Experiments on when hyperspherical energy helps: `python -m experiments --help`."""
