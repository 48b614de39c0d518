"""Rules of the map: which recorded variants it shows, in which group, and under which label."""

import re
from collections.abc import Callable, Iterable
from math import log10
from typing import NamedTuple

from experiments.records import Config, Value

# Sides of the map: settings that this package recommends, and those of the papers.
OURS, PAPERS = "ours", "papers"
SIDES = {OURS: "this package", PAPERS: "the papers"}
# Groups of the map, in order, with their headings.
GROUPS = {
    "rare": "Rare classes",
    "crowded": "Many classes in few dimensions",
    "balanced": "Balanced images, CNN-9",
    "starts": "Starts and fixed class vectors",
    "finetuning": "Fine-tuning",
    "other": "Other",
}
# Of experiments with a rule in `choose`.
_GROUP_OF = {
    "imbalance": "rare",
    "imbalanced_cnn9": "rare",
    "optimizers": "rare",
    "crowding": "crowded",
    "cnn9": "balanced",
    "resnet32": "balanced",
    "starts": "starts",
    "finetuning": "finetuning",
    "sphereface_plus": "other",
    "unlabeled": "other",
    "pruning": "other",
}
# Experiments whose variants regularize hidden layers too, with the names of their networks.
_NETWORKS = {"cnn9": "CNN-9", "imbalanced_cnn9": "CNN-9", "resnet32": "ResNet-32"}
# Variants with the papers' factors, 10 for class vectors and 1 for hidden layers.
_PAPERS = {
    "imbalance": {"MHE(10)": "classes"},
    "crowding": {"MHE(10)": "classes"},
    "sphereface_plus": {"MHE(10)": "classes"},
    "finetuning": {"hidden 1": "hidden", "output 10": "classes"},
}
# Experiments whose baseline has an energy. The map compares with training without one.
_OWN_BASELINES = ("lazy", "lazy_digits", "signs")
# Variants that are no energies of neurons on a sphere.
_OTHER_METHODS = ("orthogonal", "SRIP")
# Variants of this package that have no factor in units of position.
_OURS = {
    "starts": ("low-energy classes", "low-energy layers", "fixed prototypes"),
    "unlabeled": ("MHE(1)", "contrastive + MHE(1)"),
}
# Metrics in place of the first one, with their labels.
_METRICS = {
    "unlabeled": {"5 labels %": ""},
    "pruning": {"all neurons %": "whole network", "random half %": "half of the neurons lost"},
}
_LAYERS = {"all": "all layers", "hidden": "hidden layers", "classes": "class vectors"}
_DATA = {"cifar10_jpeg": "CIFAR-10", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
# Parts that labels name only if no others tell conditions apart.
_LAST_PARTS = ("trainer", "precision", "card", "backend")
# Texts of parts of a condition, in the order of labels. Other parts follow.
_PART_TEXTS: dict[str, Callable[[Value], str]] = {
    "imbalance": lambda value: f"{value} imbalance",
    "data": lambda value: _DATA.get(str(value), str(value)),
    "optimizer": lambda value: _OPTIMIZERS.get(str(value).lower(), str(value)),
    "rate": lambda value: f"rate {value}",
    "classes": lambda value: f"{value:,} classes",
    "head": str,
    "width": lambda value: f"width {value}",
    "steps": lambda value: f"{value:,} steps",
    "features": lambda value: f"{value} dim.",
    "margin": lambda value: f"margin {value}",
}


class Choice(NamedTuple):
    """Why a variant is on the map.

    Attributes:
        side: `OURS` or `PAPERS`.
        subject: what the variant regularizes, or its name.
    """

    side: str
    subject: str


def _classes(condition: Config) -> int:
    cifar100 = "cifar100" in str(condition.get("data"))
    return int(condition.get("classes", 100 if cifar100 else 10))


def choose(experiment: str, condition: Config, variant: str) -> Choice | None:
    """Decides whether the map shows a variant, and why; None if it does not.

    It shows the recommended factors in units of position (about 0.1 for hidden layers, about 10
    divided by the number of classes for class vectors), the papers' regularizers with the papers'
    factors, and low-energy starts, but no methods without an energy, and no comparisons of an
    energy with another one. Of experiments without a rule, it shows everything.
    """
    if experiment in _OWN_BASELINES:
        return None
    if experiment not in _GROUP_OF:
        return Choice(OURS, variant)
    match = re.fullmatch(r"(.*?)(?: \((hidden|classes)\))?", variant)
    assert match is not None
    defaults = dict.fromkeys(_NETWORKS, "all") | {"pruning": "hidden"}
    name, layers = match[1], match[2] or defaults.get(experiment, "classes")
    if position := re.fullmatch(r"position (\S+)", name):
        recommended = 10 / _classes(condition) if layers == "classes" else 0.1
        near = abs(log10(float(position[1]) / recommended)) < 0.5
        return Choice(OURS, _LAYERS[layers]) if near else None
    if experiment in _NETWORKS:
        if name in _OTHER_METHODS:
            return None
        return Choice(PAPERS, _LAYERS[layers] if name == "half-space MHE s=2" else variant)
    if experiment in _OURS:
        return Choice(OURS, variant) if variant in _OURS[experiment] else None
    layers = _PAPERS.get(experiment, {}).get(variant, "")
    return Choice(PAPERS, _LAYERS[layers]) if layers else None


def metrics_of(experiment: str, main_metric: str) -> dict[str, str]:
    """Returns the metrics that the map shows, with labels: accuracies in percent."""
    accuracy = main_metric.endswith("%") and any(
        word in main_metric for word in ("accuracy", "recall", "task")
    )
    return _METRICS.get(experiment, {main_metric: ""} if accuracy else {})


def group_of(experiment: str) -> str:
    """Returns the group of the comparisons of an experiment, a key of `GROUPS`."""
    return _GROUP_OF.get(experiment, "other")


def title_of(experiment: str) -> str:
    """Returns the first part of labels, empty where the heading of the group says it."""
    if experiment in _NETWORKS:
        return "" if experiment == "cnn9" else _NETWORKS[experiment]
    titles = {
        "sphereface_plus": "SphereFace+",
        "optimizers": "digits",
        "unlabeled": "no labels, InfoNCE is the baseline",
        "pruning": "hidden layers, digits",
    }
    if experiment in titles:
        return titles[experiment]
    return "" if experiment in _GROUP_OF else experiment.replace("_", " ")


def ordered_subjects(subjects: Iterable[str]) -> list[str]:
    """Returns all different subjects: layers first, the others as they come."""
    return sorted(dict.fromkeys(subjects), key=lambda subject: subject not in _LAYERS.values())


def label_parts(conditions: Iterable[Config]) -> list[str]:
    """Returns parts that tell the conditions apart, as few as possible, in the order of labels."""
    conditions = list(conditions)
    known = list(_PART_TEXTS)
    parts = sorted(
        {part for condition in conditions for part in condition},
        key=lambda part: (known.index(part) if part in known else len(known), part),
    )
    parts = [part for part in parts if part not in _LAST_PARTS] + list(_LAST_PARTS)
    chosen: list[str] = []
    found = 1
    for part in parts:
        more = len({tuple(each.get(name) for name in (*chosen, part)) for each in conditions})
        if more > found:
            chosen.append(part)
            found = more
    return chosen


def part_text(part: str, value: Value) -> str:
    """Formats one part of a condition."""
    return _PART_TEXTS[part](value) if part in _PART_TEXTS else f"{part} {value}"
