"""The demo: data, training, measured values and the printed table."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_mhe import MHE, energy_report, hyperspherical_energy
from keras_mhe.cli import _demo as demo

pytestmark = pytest.mark.once


def printed_text(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


class TestData:
    def test_training_set_is_long_tailed_and_the_other_images_are_for_testing(self):
        split = demo.long_tailed_digits(0)
        counts = np.bincount(split.labels)
        assert (counts[0], counts[-1]) == (100, 2)
        assert np.all(np.diff(counts) < 0)
        assert 260 <= counts.sum() <= 285
        assert len(split.labels) + len(split.test_labels) == 1797
        together = np.concatenate([split.images, split.test_images])
        assert (together.min(), together.max()) == (0, 1)

    def test_equal_seeds_give_equal_data_and_other_seeds_differ(self):
        first, repeated, other = (demo.long_tailed_digits(seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first.images, repeated.images)
        assert not np.array_equal(first.digits, other.digits)

    def test_classes_are_sorted_from_frequent_to_rare(self):
        split = demo.long_tailed_digits(3)
        digits = demo.load_digits()
        for image, label in zip(split.images[::20], split.labels[::20], strict=True):
            [match] = np.flatnonzero(np.all(digits.data / 16 == image, axis=1))
            assert split.digits[label] == digits.target[match]


class TestTraining:
    @pytest.mark.slow
    def test_models_of_a_pair_have_equal_initial_weights(self):
        split = demo.long_tailed_digits(0)
        models = [demo.train(split, regularizer, 0, epochs=1) for regularizer in (None, MHE(0))]
        for plain, regularized in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_allclose(plain, regularized, atol=1e-5)

    def test_measured_values_match_their_definitions(self):
        split = demo.long_tailed_digits(0)
        model = demo.train(split, MHE(10.0), 0, epochs=5)
        figures = demo.measure(model, split, s=1)
        predictions = model.predict(split.test_images, verbose=0).argmax(axis=1)
        recall = [np.mean(predictions[split.test_labels == k] == k) for k in range(10)]
        accuracy, rarest, angle, energy = figures.values()
        assert accuracy == pytest.approx(100 * np.mean(recall))
        assert rarest == pytest.approx(100 * np.mean(recall[-3:]))
        kernel = keras.ops.convert_to_numpy(model.get_layer("classes").kernel).T
        angles = [
            np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
            for i, u in enumerate(kernel)
            for v in kernel[:i]
        ]
        assert angle == pytest.approx(min(angles), rel=1e-4)
        assert energy == pytest.approx(float(hyperspherical_energy(kernel.T, 1)))


class TestPicture:
    def test_panels_have_the_class_vectors_and_the_mean_accuracy_of_all_pairs(self):
        split = demo.long_tailed_digits(0)
        models = {name: demo.build(None, 1) for name in demo.VARIANTS}
        runs = {
            "without MHE": [{demo.ALL: 50.0, demo.RARE: 1.0}, {demo.ALL: 60.0, demo.RARE: 3.0}],
            "with MHE": [{demo.ALL: 60.0, demo.RARE: 11.0}, {demo.ALL: 70.0, demo.RARE: 13.0}],
        }
        figure = demo.draw(split, models, runs)
        texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
        assert texts[0][-3::2] == ["without MHE", "balanced accuracy 55 %\n3 rarest digits: 2 %"]
        assert texts[1][-3::2] == ["with MHE", "balanced accuracy 65 %\n3 rarest digits: 12 %"]
        for (*names, _, angle, _), model in zip(texts, models.values(), strict=True):
            assert names == [str(digit) for digit in split.digits]
            report = energy_report(model, half_space=False, where="classes")
            assert angle == f"smallest angle {report.summary['nearest_angle_min']:.0f}°"
        assert "mean of all pairs" in figure.texts[0].get_text()

    def test_picture_of_one_pair_does_not_speak_of_means(self):
        models = {name: demo.build(None, 1) for name in demo.VARIANTS}
        runs = {name: [{demo.ALL: 50.0, demo.RARE: 1.0}] for name in demo.VARIANTS}
        figure = demo.draw(demo.long_tailed_digits(0), models, runs)
        assert "mean" not in figure.texts[0].get_text()


def test_training_images_are_described_from_the_most_common_digit_to_the_rarest():
    split = demo.long_tailed_digits(0)
    text = demo.describe(split)
    assert text.startswith(f"100 of digit {split.digits[0]}, 65 of {split.digits[1]}, ")
    assert text.endswith(f", 3 of {split.digits[8]}, 2 of {split.digits[9]}")


class TestTable:
    @pytest.mark.parametrize(
        ("gains", "verdict"),
        [
            ([1.0, 1.1, 0.9], "higher"),
            ([-1.0, -1.1, -0.9], "lower"),
            ([1.0, -1.0, 0.1], "unclear"),
            ([5.0], "one pair"),
            ([0.0, 0.0], "unclear"),
        ],
    )
    def test_verdict_compares_models_with_and_without_mhe(self, gains, verdict):
        baseline = [{"accuracy": 50.0 + k} for k in range(len(gains))]
        with_mhe = [
            {"accuracy": run["accuracy"] + gain} for run, gain in zip(baseline, gains, strict=True)
        ]
        row = next(
            line for line in printed_text(demo.tabulate(baseline, with_mhe)).splitlines()
            if "accuracy" in line
        )  # fmt: skip
        assert verdict in row
        assert f"{np.mean(gains):.2f}" in row

    def test_table_fits_80_columns_without_truncation(self):
        figures = {demo.ALL: 55.5, demo.RARE: 5.0, "smallest angle °": 30.0, "energy (s=0.01)": 1.0}
        # The widest numbers of percentages and angles, and the widest verdict beside them.
        runs = [dict.fromkeys(figures, 40.0), dict.fromkeys(figures, 60.0)]
        text = printed_text(demo.tabulate(runs, runs[::-1]))
        assert text.count("unclear") == len(figures)
        assert "50.00 ± 10.00" in text
        assert all(name in text for name in figures)
        assert "…" not in text
