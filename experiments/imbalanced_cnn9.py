"""CNN-9 on CIFAR with fewer images of one class or of all classes, as in the papers.

`single` keeps a tenth of the images of class 0. `multiple` keeps a tenth of class 0, two tenths of
class 1, and so on. The test images have all classes equally often.
"""

from experiments import cnn9

experiment = cnn9.experiment._replace(
    name="imbalanced_cnn9",
    description=__doc__,
    main_metrics=("accuracy %", "class 0 %"),
    page_rows=({},),
    grid={"imbalance": cnn9.IMBALANCES} | cnn9.experiment.grid,
    page_metrics=("accuracy %", "class 0 %"),
    default_variants=("baseline", "half-space MHE s=2"),
)
