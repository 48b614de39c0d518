"""Test accuracies in the logs that the authors of the papers released: CNN-9 on CIFAR-100, in %.

Each is that of one run, after its last step. Sources: the folders `log` of the programs of Liu et
al. (2018) and of Lin et al. (2020, CoMHE).
"""

BASELINE = 69.74
# How these runs were made, by the parts of a config of `cnn9`; CoMHE took 75,000 steps.
CONDITION = {
    "images": 50_000,
    "width": 64,
    "steps": 42_500,
    "rate": 0.1,
    "warmup": 0,
    "loss": "bounded",
}
# By the variants of the experiment `cnn9`.
ACCURACIES = {
    "MHE s=0": 73.16,
    "MHE s=1": 72.85,
    "MHE s=2": 72.78,
    "half-space MHE s=0": 73.75,
    "half-space MHE s=1": 73.60,
    "half-space MHE s=2": 73.99,
    "angular MHE s=0": 71.97,
    "angular MHE s=1": 72.50,
    "angular MHE s=2": 72.76,
    "angular half-space MHE s=0": 73.53,
    "angular half-space MHE s=1": 73.42,
    "angular half-space MHE s=2": 73.94,
    "RP-CoMHE": 75.59,
    "AP-CoMHE": 75.13,
    "adversarial CoMHE": 74.74,
}
