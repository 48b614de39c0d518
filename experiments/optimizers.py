"""Long-tailed digits with SGD, Adam and AdamW: does MHE improve accuracy at good rates?"""

from experiments.imbalance import experiment as long_tails

experiment = long_tails._replace(
    name="optimizers",
    description=__doc__,
    variants=("baseline", "position 0.1", "position 1", "position 10"),
    # Of the rates that were tried, 0.1 suits the baseline with SGD best, and 0.01 with the others.
    grid=long_tails.grid | {"features": (8, 32, 128), "optimizer": ("sgd",), "rate": (0.1,)},
    page_rows=({"variant": ("position 1",)},),
    plotted_variants=(),
)
