"""CNN-9 with CoMHE whose projections have entries of plus and minus one, against normal numbers."""

from experiments import cnn9

experiment = cnn9.experiment._replace(
    name="signs",
    description=__doc__,
    variants=("RP-CoMHE", "RP-CoMHE, signs"),
    main_metrics=("accuracy %", "mean position"),
    page_rows=({},),
    page_metrics=(),
    default_variants=(),
)
