"""The list of runs for a GPU, most wanted first."""

from itertools import product
from typing import NamedTuple

from experiments.records import Config, Value

_MAIN = "half-space MHE s=2"
_THREE = ("baseline", _MAIN, "position 0.1 (hidden)")


class Setting(NamedTuple):
    """What `experiments.calibration` finds once for each card.

    Attributes:
        rate: initial learning rate.
        warmup: steps in which the rate rises linearly from zero to `rate`.
        steps: training steps.
    """

    rate: float
    warmup: int
    steps: int


class Group(NamedTuple):
    """Runs that answer one question.

    Attributes:
        question: what the runs are for.
        experiment: name of the experiment.
        variants: what is compared, most wanted first.
        seeds: number of seeds of each variant, which run before the next variant.
        parts: parts of the configs that differ from those of the other groups.
    """

    question: str
    experiment: str
    variants: tuple[str, ...]
    seeds: int
    parts: Config


GROUPS = (
    Group("What does an energy gain at the papers' width and length?", "cnn9", _THREE, 3, {}),
    Group(
        "What does it gain with the papers' loss, with which training starts late?",
        "cnn9",
        _THREE,
        3,
        {"loss": "bounded", "warmup": 0},
    ),
    Group(
        "What do the papers' regularizers gain, and where do they act?",
        "cnn9",
        (
            *(f"{_MAIN} (hidden)", f"{_MAIN} (classes)", "RP-CoMHE", "position 0.1"),
            *("half-space MHE s=0", "MHS", "orthogonal", "SRIP"),
        ),
        3,
        {},
    ),
    Group(
        "What if most classes are rare?", "imbalanced_cnn9", _THREE, 3, {"imbalance": "multiple"}
    ),
    Group("What if one class is rare?", "imbalanced_cnn9", _THREE, 3, {"imbalance": "single"}),
    *(
        Group("Does the gain depend on the width?", "cnn9", _THREE[:2], 3, {"width": width})
        for width in (16, 32, 128, 256)
    ),
    Group(
        "Is it the same for a residual network?",
        "resnet32",
        (*_THREE, "RP-CoMHE"),
        3,
        # A step has four times the operations of one of CNN-9.
        {"steps": 20_000},
    ),
    Group(
        "What do the other regularizers of the papers gain?",
        "cnn9",
        ("AP-CoMHE", "adversarial CoMHE", "MGD", "MHP", "MHC"),
        3,
        {},
    ),
    *(
        Group(
            "Does a crowded head gain in 64 dimensions?",
            "crowding",
            ("baseline", "position 0.01", "position 0.1", "MHE(1)"),
            5,
            {"head": head},
        )
        for head in ("normalized", "plain")
    ),
)
QUICK_GROUPS = (
    Group("Do the programs run?", "cnn9", ("baseline", _MAIN), 1, {}),
    Group("Do the programs run?", "crowding", ("baseline",), 1, {"head": "plain"}),
)


def training(data: str, setting: Setting, quick: bool) -> Config:
    """Returns the parts that runs on images have in common."""
    sizes: Config = {"width": 4, "images": 512} if quick else {"width": 64, "images": 50_000}
    return {
        "backend": "jax",
        "data": data,
        "trainer": "scan",
        "precision": "bfloat16",
        "loss": "cross-entropy",
        **sizes,
        **setting._asdict(),
    }


def _crowding(quick: bool) -> Config:
    sizes: tuple[Value, ...] = (10, 3, 1) if quick else (1000, 64, 20)
    return {"backend": "jax", **dict(zip(("classes", "features", "passes"), sizes, strict=True))}


def configs(group: Group, data: str, setting: Setting, quick: bool) -> list[Config]:
    """Returns the runs of a group: all seeds of a variant before the next variant."""
    common = _crowding(quick) if group.experiment == "crowding" else training(data, setting, quick)
    return [
        {"experiment": group.experiment, **common, **group.parts, "variant": variant, "seed": seed}
        for variant, seed in product(group.variants, range(group.seeds))
    ]


def groups(quick: bool) -> tuple[Group, ...]:
    """Returns all groups, most wanted first."""
    return QUICK_GROUPS if quick else GROUPS
