"""The map of the evidence: which records it shows, Holm's correction, verdicts and its page."""

import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

pytestmark = pytest.mark.once


def module(name):
    return pytest.importorskip(f"experiments.{name}", reason="only a checkout has experiments")


evidence, rules = module("evidence"), module("evidence_rules")
page, picture = module("evidence_page"), module("evidence_plot")
multiplicity, papers, records = map(module, ("multiplicity", "papers_results", "records"))
main = module("__main__")
experiments = {each.name: each for each in main.EXPERIMENTS}
estimate = pytest.importorskip("keras_mhe.cli._paired").estimate

root = Path(__file__).parents[2]
# Three pairs with clear and unclear differences, and with too few pairs.
HELPS, HARMS, UNCLEAR = (1.0, 1.1, 1.2), (-1.0, -1.1, -1.2), (-1.0, 0.0, 1.1)
IMBALANCE = {"data": "digits", "passes": 40, "features": 8, "backend": "jax"}
CNN9 = {"data": "cifar10", "width": 16, "images": 10, "steps": 20, "rate": 0.1, "backend": "jax"}
CNN9 |= {"trainer": "fit", "precision": "float32", "loss": "cross-entropy"}


@pytest.fixture
def rows_of(tmp_path):
    """Writes records of a baseline and of variants, and returns the rows of the map."""

    def rows(experiment, *arms, **changes):
        if experiment not in experiments:
            shape = experiments["imbalance"]._replace(
                name=experiment, variants=("baseline", *(arm[1] for arm in arms)), **changes
            )
        else:
            shape = experiments[experiment]._replace(**changes)
        for condition, variant, differences in arms:
            for seed, difference in enumerate(differences):
                for name, accuracy in (("baseline", 50.0), (variant, 50.0 + difference)):
                    config = {"experiment": experiment, **condition, "variant": name, "seed": seed}
                    figures = dict.fromkeys(shape.main_metrics, accuracy)
                    record = {"config": config, "figures": figures, "machine": {"processor": "x"}}
                    records.append(tmp_path / f"{experiment}.jsonl", record)
        return evidence.evidence([shape], tmp_path)

    return rows


def places(rows):
    return [(row.group, row.labels, row.side, row.variant) for row in rows]


class TestRules:
    @pytest.mark.parametrize(
        ("experiment", "condition", "variant", "side", "subject"),
        [
            ("imbalance", {}, "position 1", "ours", "class vectors"),
            ("imbalance", {"optimizer": "adam"}, "MHE(10)", "papers", "class vectors"),
            ("crowding", {"classes": 1000}, "position 0.01", "ours", "class vectors"),
            ("crowding", {"classes": 1000}, "MHE(10)", "papers", "class vectors"),
            ("cnn9", {"data": "cifar10"}, "position 1 (classes)", "ours", "class vectors"),
            ("cnn9", {"data": "cifar100"}, "position 0.1 (classes)", "ours", "class vectors"),
            ("cnn9", {}, "position 0.1 (hidden)", "ours", "hidden layers"),
            ("cnn9", {}, "position 0.1", "ours", "all layers"),
            ("cnn9", {}, "half-space MHE s=2 (hidden)", "papers", "hidden layers"),
            ("cnn9", {}, "half-space MHE s=2", "papers", "all layers"),
            ("cnn9", {}, "RP-CoMHE", "papers", "RP-CoMHE"),
            ("starts", {}, "fixed prototypes", "ours", "fixed prototypes"),
            ("finetuning", {}, "hidden 1", "papers", "hidden layers"),
            ("another", {}, "position 7", "ours", "position 7"),
        ],
    )
    def test_recommended_settings_and_those_of_the_papers_are_shown(
        self, experiment, condition, variant, side, subject
    ):
        assert rules.choose(experiment, condition, variant) == (side, subject)

    @pytest.mark.parametrize(
        ("experiment", "condition", "variant"),
        [
            ("imbalance", {}, "position 0.1"),
            ("imbalance", {}, "bounded MHE(10)"),
            ("crowding", {"classes": 1000}, "position 0.1"),
            ("cnn9", {"data": "cifar100"}, "position 1 (classes)"),
            ("cnn9", {}, "orthogonal"),
            ("cnn9", {}, "SRIP"),
            ("starts", {}, "fixed random"),
            ("finetuning", {}, "hidden 1000"),
            ("lazy", {}, "every 8th"),
        ],
    )
    def test_other_factors_are_not_shown(self, experiment, condition, variant):
        assert rules.choose(experiment, condition, variant) is None

    def test_labels_name_as_few_parts_as_possible(self):
        small, large = CNN9, CNN9 | {"width": 64, "steps": 40, "backend": "tensorflow"}
        assert rules.label_parts([small, large]) == ["width"]
        other = small | {"trainer": "scan", "backend": "tensorflow"}
        assert rules.label_parts([small, large, other]) == ["width", "trainer"]
        assert rules.label_parts([small]) == []

    def test_accuracies_are_shown_and_no_other_metrics(self):
        shown = {
            name: rules.metrics_of(name, each.main_metrics[0]) for name, each in experiments.items()
        }
        assert shown["imbalance"] == {"balanced accuracy %": ""}
        assert list(shown["pruning"]) == ["all neurons %", "random half %"]
        without = {name for name, metrics in shown.items() if not metrics}
        assert without == {"gan", "correlation", "codebook", "plateau"}
        for name, metrics in shown.items():
            assert set(metrics) <= set(experiments[name].main_metrics)


class TestRows:
    def test_a_new_part_is_in_the_labels_once_its_values_differ(self, rows_of):
        arms = [(IMBALANCE | {"new": new}, "position 1", HELPS) for new in (3, 5)]
        labels = [row.labels for row in rows_of("imbalance", arms[0])]
        assert labels == [("class vectors",)]
        labels = [row.labels for row in rows_of("imbalance", arms[1])]
        assert labels == [("new 3",), ("new 5",)]

    def test_labels_tell_conditions_apart(self, rows_of):
        rows = rows_of(
            "imbalance",
            *(
                (IMBALANCE | {"optimizer": optimizer, "features": features}, variant, HELPS)
                for optimizer in ("sgd", "adam")
                for features in (32, 8)
                for variant in ("MHE(10)", "position 1")
            ),
        )
        assert [row.labels for row in rows[::2]] == [
            ("Adam", "8 dim."),
            ("Adam", "32 dim."),
            ("SGD", "8 dim."),
            ("SGD", "32 dim."),
        ]
        # Both sides of a condition are on one line.
        assert [set(line.sides) for line in evidence.lines(rows)] == [{"ours", "papers"}] * 4

    def test_variants_that_are_named_by_their_layers_come_first(self, rows_of):
        rows = rows_of(
            "cnn9",
            (CNN9, "half-space MHE s=0", HELPS),
            (CNN9, "half-space MHE s=2 (hidden)", HELPS),
        )
        assert [row.labels for row in rows] == [("hidden layers",), ("half-space MHE s=0",)]

    @pytest.mark.parametrize(
        ("name", "group", "labels"),
        [
            ("imbalanced_cnn9", "rare", ("CNN-9",)),
            ("cnn9", "balanced", ("all layers",)),
            ("resnet32", "balanced", ("ResNet-32",)),
        ],
    )
    def test_networks_have_their_group_and_name(self, rows_of, name, group, labels):
        rows = rows_of(name, (CNN9, "half-space MHE s=2", UNCLEAR))
        assert places(rows) == [(group, labels, "papers", "half-space MHE s=2")]

    def test_rows_that_would_share_a_place_are_told_apart_by_variant(self, rows_of):
        shape = experiments["cnn9"].variants
        rows = rows_of(
            "cnn9",
            (CNN9, "position 0.1", HELPS),
            (CNN9, "position 0.2", HELPS),
            variants=(*shape, "position 0.2"),
        )
        assert [row.labels[-1] for row in rows] == ["position 0.1", "position 0.2"]
        assert len(evidence.lines(rows)) == 2

    def test_everything_of_an_experiment_without_a_rule_is_shown(self, rows_of):
        rows = rows_of("dead_codes", (IMBALANCE, "a", HELPS), (IMBALANCE, "b", HARMS))
        assert places(rows) == [
            ("other", ("dead codes", "a"), "ours", "a"),
            ("other", ("dead codes", "b"), "ours", "b"),
        ]

    def test_two_pairs_are_not_enough(self, rows_of):
        assert rows_of("imbalance", (IMBALANCE, "position 1", HELPS[:2])) == []

    def test_no_records_give_no_rows(self, tmp_path):
        assert evidence.evidence(experiments.values(), tmp_path) == []


class TestVerdicts:
    @pytest.mark.parametrize(
        ("differences", "verdict"),
        [
            (HELPS, "helps"),
            (HARMS, "harms"),
            (UNCLEAR, "nothing shows"),
            # Chance level is 10 %.
            ((-40.0, 1.0, 1.0), "runs failed"),
        ],
    )
    def test_verdicts_and_marks(self, rows_of, differences, verdict):
        [row] = rows_of("imbalance", (IMBALANCE, "position 1", differences))
        assert row.verdict == verdict
        assert (row.difference.low > 0, row.difference.high < 0) == (
            verdict == "helps",
            verdict == "harms",
        )
        figure = picture.draw([row])
        markers = {line.get_marker() for line in figure.axes[0].lines} - {"None", None}
        assert markers == {
            {"helps": "^", "harms": "v", "nothing shows": "o", "runs failed": "x"}[verdict]
        }
        plt.close(figure)

    def test_marks_are_filled_where_differences_survive_the_correction(self, rows_of):
        clear, weak = (1.0, 1.001, 1.002), (1.0, 2.0, 3.0)
        rows = rows_of(
            "imbalance",
            (IMBALANCE, "position 1", clear),
            (IMBALANCE | {"features": 3}, "position 1", weak),
        )
        assert [row.survives for row in rows] == [False, True]
        assert "**helps**" in page.group_tables(rows[1:])
        assert "**helps**" not in page.group_tables(rows[:1])


class TestHolm:
    @staticmethod
    def by_definition(values, level):
        """Rejects the smallest of all values and continues with the others, one by one."""
        rejected = [False] * len(values)
        left = list(range(len(values)))
        while left:
            smallest = min(left, key=values.__getitem__)
            if values[smallest] > level / len(left):
                break
            rejected[smallest] = True
            left.remove(smallest)
        return rejected

    def test_textbook_example(self):
        assert multiplicity.holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
        assert multiplicity.holm([]) == []

    @given(st.lists(st.floats(0, 0.2), max_size=12), st.sampled_from([0.01, 0.05]))
    def test_equals_the_procedure_by_definition(self, values, level):
        assert multiplicity.holm(values, level) == self.by_definition(values, level)

    @given(st.integers(2, 9), st.integers(0, 2**32))
    def test_p_values_are_those_of_the_t_test(self, pairs, seed):
        differences = np.random.default_rng(seed).normal(0.5, 1, pairs)
        found = multiplicity.p_value(estimate(differences), pairs)
        assert found == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)

    def test_p_values_of_equal_differences(self):
        assert multiplicity.p_value(estimate([0.0, 0.0, 0.0]), 3) == 1
        assert multiplicity.p_value(estimate([2.0, 2.0, 2.0]), 3) == 0


@pytest.fixture(scope="module")
def recorded():
    return evidence.evidence(experiments.values(), root / "experiments" / "results")


class TestPage:
    def test_generated_parts_are_those_of_the_records(self, recorded):
        text = (root / "docs" / "evidence.md").read_text("utf-8")
        assert page.update_evidence(text, recorded) == text

    def test_the_command_writes_the_page_and_the_picture(self, tmp_path, monkeypatch):
        (tmp_path / "docs" / "images").mkdir(parents=True)
        text = (root / "docs" / "evidence.md").read_text("utf-8")
        marks = re.sub("(?s)(<!-- table of .*? -->\n).*?(<!-- end)", r"\1\2", text)
        (tmp_path / "docs" / "evidence.md").write_text(marks, "utf-8")
        shutil.copytree(root / "experiments" / "results", tmp_path / "experiments" / "results")
        monkeypatch.setattr(main, "_FOLDER", tmp_path / "experiments")
        main.write_map()
        assert (tmp_path / "docs" / "evidence.md").read_text("utf-8") == text != marks
        picture_file = tmp_path / "docs" / "images" / "evidence.png"
        # A column of a page is about 700 pixels wide.
        with Image.open(picture_file) as image:
            assert image.width >= 700

    def test_every_row_has_a_place_of_its_own(self, recorded):
        lines = evidence.lines(recorded)
        assert sum(len(line.sides) for line in lines) == len(recorded)

    def test_counts_add_up(self, recorded):
        cells = [line.split("|")[2:-1] for line in page.counts(recorded).splitlines()[2:4]]
        for total, *parts in cells:
            assert int(total) == sum(int(part.split("(")[0]) for part in parts)
        assert sum(int(total) for total, *_ in cells) == len(recorded)

    def test_results_of_the_papers_are_of_variants_of_cnn9(self):
        assert papers.ACCURACIES.keys() <= set(experiments["cnn9"].variants)

    def test_our_results_stand_beside_those_of_the_papers(self, rows_of):
        rows = rows_of("cnn9", (CNN9, "RP-CoMHE", HELPS), (CNN9, "SRIP", HELPS))
        [line] = [line for line in page.papers_table(rows).splitlines() if "RP-CoMHE" in line]
        assert "| 75.59 | +5.85 |" in line
        assert "3 pairs: +1.10 (" in line
        assert "| ours | CIFAR-10 | 10 | 16 | 20 | 0.1 | 0 | cross-entropy | fit, float32 |" in (
            page.conditions_table(rows)
        )
