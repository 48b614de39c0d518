"""How long an energy takes, in ratios to the one product it cannot do without."""
