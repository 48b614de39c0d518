"""Experiments: runner, records, paired statistics, tables of the page, data and trainings."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from rich.console import Console
from scipy import stats

pytestmark = pytest.mark.once

root = Path(__file__).parents[2]
folder = root / "experiments"


def module(name):
    return pytest.importorskip(f"experiments.{name}", reason="only a checkout has experiments")


imbalance, crowding = map(module, ("imbalance", "crowding"))
sphereface, gan, finetuning = map(module, ("sphereface_plus", "gan", "finetuning"))
classifiers, comparison, data, records = map(
    module, ("classifiers", "comparison", "data", "records")
)
report, runner, tables = map(module, ("report", "runner", "tables"))

names = ["cnn9", "imbalance", "starts", "crowding", "sphereface_plus", "gan", "correlation"]
names += ["finetuning", "optimizers", "unlabeled", "codebook", "pruning"]
names += ["imbalanced_cnn9", "plateau", "lazy", "lazy_digits", "signs"]


def experiment(name):
    return module(name).experiment


def record(variant, seed, accuracy, **condition):
    config = {"experiment": "none", **condition, "variant": variant, "seed": seed}
    return {
        "config": config,
        "figures": {"accuracy %": accuracy},
        "machine": {"processor": "this one"},
    }


def program(*options):
    """Starts the program in a process group of its own, on JAX, which starts in half the time."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *options],
        cwd=root,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class TestRunner:
    options = ("imbalance", "--passes", "2", "--features", "3", "--seeds", "1")
    options += ("--variants", "baseline,MHE(10)")

    def table(self, path):
        found = list(records.read(path / "imbalance.jsonl").values())
        return tables.full_table(found, experiment("imbalance")).to_markdown()

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="needs process groups")
    def test_interrupted_and_complete_programs_end_with_the_same_table(self, tmp_path):
        killed, complete = tmp_path / "killed", tmp_path / "complete"
        file = killed / "imbalance.jsonl"
        process = program(*self.options, "--workers", "1", "--out", str(killed))
        deadline = time.monotonic() + 300
        while not (file.exists() and file.read_text().count("\n")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate()
        # The workers end without being killed.
        while alive(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = file.read_text().splitlines()
        assert len(done) == 1
        # A kill while a line is written leaves a part of it.
        with file.open("a") as stream:
            stream.write(done[0][:50])
        for path, workers in ((killed, "1"), (complete, "2")):
            process = program(*self.options, "--workers", workers, "--out", str(path))
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0
            assert ("1 of 2 runs" in output) == (path == killed)
        assert file.read_text().splitlines()[:1] == done
        assert len(file.read_text().splitlines()) == 2
        assert self.table(killed) == self.table(complete)
        one, other = (records.read(path / "imbalance.jsonl") for path in (killed, complete))
        assert {k: v["figures"] for k, v in one.items()} == {
            k: v["figures"] for k, v in other.items()
        }

    def test_runs_beside_a_failed_one_are_recorded(self, tmp_path, monkeypatch):
        futures, started = [], []

        class Pool(ThreadPoolExecutor):
            def __init__(self, workers, *args, **kwargs):
                super().__init__(workers)

            def submit(self, *args, **kwargs):
                futures.append(super().submit(*args, **kwargs))
                return futures[-1]

        def run_config(config, sources):
            started.append(config["seed"])
            if config["seed"] == 0:
                raise ValueError("seed 0")
            # Ends after all other runs are cancelled.
            deadline = time.monotonic() + 60
            while len(futures) < 100 or not futures[-1].cancelled():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return record("baseline", config["seed"], 1.0)

        monkeypatch.setattr(runner, "ProcessPoolExecutor", Pool)
        monkeypatch.setattr(runner, "run_config", run_config)
        path = tmp_path / "a.jsonl"
        configs = [record("baseline", seed, 1.0)["config"] for seed in range(100)]
        with pytest.raises(ValueError, match="seed 0"):
            runner.run_missing(configs, {}, path, 2, Console(quiet=True))
        # One run was beside the failure, and another may have begun before the failure was seen.
        assert sorted(started) in ([0, 1], [0, 1, 2])
        recorded = [each["config"]["seed"] for each in records.read(path).values()]
        assert sorted([0, *recorded]) == sorted(started)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["imbalance", "--features", "0"], "positive ints separated by commas.*--features 0"),
            (["crowding", "--variants", "none"], "Variants are baseline, .*Received: none"),
            # A worker raises this one.
            (["gan", "--data", "/nowhere"], "Data must be .*Received: /nowhere"),
        ],
    )
    def test_unusable_options_give_a_message_without_traceback(self, options, message, tmp_path):
        process = program(*options, "--seeds", "1", "--out", str(tmp_path))
        _, output = process.communicate(timeout=300)
        assert process.returncode == 2
        assert "Traceback" not in output
        # Remove the frame around the message.
        words = " ".join(output.replace("│", " ").split())
        assert re.search(message, words)


class TestEveryExperiment:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name",
        [
            *("starts", "crowding", "sphereface_plus", "gan", "finetuning"),
            *("unlabeled", "codebook", "pruning", "plateau", "lazy_digits"),
        ],
    )
    def test_a_quick_run_gives_finite_metrics(self, name):
        """The other experiments run as programs: imbalance above, the CNN-9 ones in `.ci/run`."""
        shape = experiment(name)
        grid = {part: shape.quick_grid.get(part, values)[0] for part, values in shape.grid.items()}
        config = {"experiment": name, **grid, "variant": shape.variants[-1], "seed": 0}
        metrics = shape.run(config, "digits").metrics
        assert set(shape.main_metrics) <= set(metrics)
        assert np.all(np.isfinite(list(map(float, metrics.values()))))


class TestRecords:
    def test_an_incomplete_line_is_ignored_and_removed(self, tmp_path):
        path = tmp_path / "a.jsonl"
        records.append(path, record("baseline", 0, 1.0))
        path.write_text(path.read_text() + '{"config": {"see')
        assert len(records.read(path)) == 1
        records.remove_incomplete_line(path)
        records.append(path, record("baseline", 1, 2.0))
        lines = path.read_text().splitlines()
        assert [json.loads(line)["figures"]["accuracy %"] for line in lines] == [1.0, 2.0]

    def test_two_results_of_one_config_raise(self, tmp_path):
        path = tmp_path / "a.jsonl"
        for accuracy in (1.0, 2.0):
            records.append(path, record("baseline", 0, accuracy))
        with pytest.raises(ValueError, match=r"two different results for one config.*line 2"):
            records.read(path)

    def test_the_order_of_entries_in_a_config_does_not_matter(self):
        assert records.config_key({"a": 1, "b": 2}) == records.config_key({"b": 2, "a": 1})

    def test_recorded_values_with_an_earlier_spelling_are_renamed(self, tmp_path):
        path = tmp_path / "a.jsonl"
        records.append(path, record("baseline", 0, 1.0, head="normalised", data="normalised"))
        [found] = records.read(path).values()
        assert found["config"]["head"] == "normalized"
        assert found["config"]["data"] == "normalised"


class TestPairs:
    @given(st.integers(2, 9), st.integers(0, 2**32), st.floats(-20, 20))
    def test_intervals_equal_those_of_the_paired_t_test(self, count, seed, shift):
        rng = np.random.default_rng(seed)
        baselines, gains = rng.uniform(0, 100, count), rng.normal(shift, 5, count)
        rows = [record("baseline", k, value) for k, value in enumerate(baselines)]
        rows += [record("MHE", k, baselines[k] + gain) for k, gain in enumerate(gains)]
        rng.shuffle(rows)
        [_, (arm, baseline)] = comparison.arms(rows, ("baseline", "MHE"))
        ours = arm.difference(baseline, "accuracy %")
        test = stats.ttest_1samp(gains, 0)
        interval = test.confidence_interval()
        np.testing.assert_allclose(
            [ours.mean, ours.low, ours.high], [np.mean(gains), *interval], rtol=1e-6, atol=1e-9
        )
        verdict = "higher" if interval.low > 0 else "lower" if interval.high < 0 else "unclear"
        assert ours.verdict == verdict
        assert ours.difference.endswith(verdict)

    def test_only_seeds_of_both_arms_are_paired(self):
        rows = [record("baseline", k, 50.0 + k) for k in (0, 1, 2)]
        rows += [record("MHE", k, 51.0 + k) for k in (1, 2, 3)]
        [_, (arm, baseline)] = comparison.arms(rows, ("baseline", "MHE"))
        assert arm.difference(baseline, "accuracy %") == (1, 0, 1, 1)

    def test_runs_on_different_machines_are_not_paired(self):
        rows = [record("baseline", k, 50.0 + k) for k in (0, 1)]
        rows += [record("MHE", k, 51.0 + k) | {"machine": {"processor": "another"}} for k in (0, 1)]
        [_, (arm, baseline)] = comparison.arms(rows, ("baseline", "MHE"))
        assert arm.difference(baseline, "accuracy %").difference == "no pairs"

    @pytest.mark.parametrize(
        ("other", "paired"),
        [
            ({"processor": "another", "cores": 8, "driver": "2", "python": "3.13"}, True),
            ({"accelerator": "H200"}, False),
            ({"versions": {"jax": "2"}}, False),
            ({"backend": "torch"}, False),
        ],
    )
    def test_runs_are_paired_if_card_backend_and_versions_are_equal(self, other, paired):
        machine = {"processor": "one", "cores": 16, "driver": "1", "python": "3.12"}
        machine |= {"accelerator": "H100", "backend": "jax", "versions": {"jax": "1"}}
        rows = [record("baseline", k, 50.0) | {"machine": machine} for k in (0, 1)]
        rows += [record("MHE", k, 51.0) | {"machine": machine | other} for k in (0, 1)]
        found = [
            arm.difference(baseline, "accuracy %").mean
            for arm, baseline in comparison.comparisons(rows, ("baseline", "MHE"))
        ]
        assert (found == [1.0]) == paired

    def test_runs_on_two_cards_are_two_conditions(self, tmp_path):
        for card, accuracy in (("H100", 50.0), ("H200", 60.0)):
            for variant in ("baseline", "MHE"):
                row = record(variant, 0, accuracy)
                row["machine"] |= {"accelerator": card}
                records.append(tmp_path / "a.jsonl", row)
        rows = records.read(tmp_path / "a.jsonl").values()
        found = comparison.comparisons(rows, ("baseline", "MHE"))
        assert [arm.condition["card"] for arm, _ in found] == ["H100", "H200"]
        assert [arm.difference(baseline, "accuracy %").mean for arm, baseline in found] == [0, 0]
        assert comparison.varying_parts(rows) == comparison.independent_parts(rows) == ["card"]

    def test_failed_runs_are_counted_in_place_of_an_interval(self):
        rows = [record("baseline", k, 50.0 + k) for k in range(3)]
        rows += [record("MHE", k, accuracy) for k, accuracy in enumerate((10.0, 60.0, np.nan))]
        shape = experiment("imbalance")._replace(
            variants=("baseline", "MHE"), main_metrics=("accuracy %",)
        )
        [_, row] = tables.full_table(rows[:-1], shape).rows
        assert row[-1] == "-15.50, 1 of 2 failed"
        [_, (arm, _)] = comparison.arms(rows, shape.variants)
        assert arm.failed_runs(shape) == 2
        assert not arm.failed_runs(shape._replace(chance_level=None))

    def test_one_pair_has_no_interval(self):
        rows = [record("baseline", 0, 50.0), record("MHE", 0, 90.0)]
        [_, (arm, baseline)] = comparison.arms(rows, ("baseline", "MHE"))
        assert arm.difference(baseline, "accuracy %").difference == "+40.00, one pair"
        assert str(arm.metric("accuracy %")) == "90.00"

    def test_baselines_have_the_same_condition_and_rows_are_sorted(self):
        rows = [
            record(variant, seed, features * share, features=features)
            for variant, share in (("MHE", 11.0), ("baseline", 10.0))
            for seed in (1, 0)
            for features in (32, 2, 8)
        ]
        shape = experiment("imbalance")._replace(
            variants=("baseline", "MHE"), main_metrics=("accuracy %",)
        )
        table = tables.full_table(rows, shape)
        assert table.headings[:3] == ["features", "variant", "runs"]
        assert [line[0] for line in table.rows] == ["2", "2", "8", "8", "32", "32"]
        assert [line[4][:5] for line in table.rows] == ["", "+2.00", "", "+8.00", "", "+32.0"]
        assert table == tables.full_table(rows[::-1], shape)


class TestData:
    def image(self, shade):
        ramp = np.arange(32, dtype="uint8")[:, None, None] * np.ones((1, 32, 3), "uint8")
        return ramp + np.array(shade, "uint8")

    def test_folders_and_archives_give_the_same_images(self, tmp_path):
        shades = {"train": [(0, 10), (1, 60), (1, 90)], "test": [(0, 30), (1, 200)]}
        arrays = {}
        for part, images in shades.items():
            files = []
            for number, (label, shade) in enumerate(images):
                path = tmp_path / "some" / part / f"class{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.image(shade)).save(path)
                files.append(path.read_bytes())
            arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), "uint8")
            arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
            arrays[f"{part}_labels"] = np.array([label for label, _ in images], "uint8")
        np.savez(tmp_path / "some.npz", **arrays)
        for source in ("some", "some.npz"):
            images = data.load_images(str(tmp_path / source))
            for part, x, y in (("train", *images[:2]), ("test", *images[2:])):
                expected = [self.image(shade) for _, shade in shades[part]]
                np.testing.assert_array_equal(x, expected)
                np.testing.assert_array_equal(y, [label for label, _ in shades[part]])
            assert data.sources_by_name([str(tmp_path / source)]) == {
                "some": str(tmp_path / source)
            }

    def test_archives_of_arrays_are_read_unchanged(self, tmp_path):
        arrays = {
            "x_train": np.stack([self.image(shade) for shade in (10, 60, 90)]),
            "y_train": np.array([[0], [1], [1]]),
            "x_test": self.image(30)[None],
            "y_test": np.array([[1]]),
        }
        np.savez(tmp_path / "some.npz", **arrays)
        for found, expected in zip(
            data.load_images(str(tmp_path / "some.npz")), arrays.values(), strict=True
        ):
            shape = expected.shape[: 1 if expected.ndim == 2 else 4]
            np.testing.assert_array_equal(found, expected.reshape(shape))

    def test_unusable_data_raise(self, tmp_path):
        np.savez(tmp_path / "other.npz", images=np.zeros(3))
        for name, message in (
            ("nothing", r"Data must be .* Received: .*nothing"),
            ("other.npz", r"An archive must hold .* Received: .*other.npz with images"),
        ):
            with pytest.raises(ValueError, match=message):
                data.load_images(str(tmp_path / name))

    @pytest.mark.parametrize("sources", [["a/cifar10.npz"], ["digits", "b/digits"], ["a/x", "b/x"]])
    def test_two_sources_with_one_name_raise(self, sources):
        with pytest.raises(ValueError, match=f"Received: {sources[-1]}"):
            data.sources_by_name(sources)

    def test_enlarged_digits_show_the_digits(self):
        images, (small, labels) = data.load_images("digits"), data.digit_images()
        assert images.x.shape == (1297, 32, 32, 3)
        assert images.x_test.shape == (500, 32, 32, 3)
        np.testing.assert_array_equal(images.y_test, labels[-500:])
        np.testing.assert_allclose(images.x[:, ::4, ::4, 0] / 255, small[:-500, ..., 0], atol=2e-3)


class TestImbalance:
    def test_class_sizes_fall_geometrically_and_all_other_images_are_for_testing(self):
        images = imbalance.long_tailed_images({"data": "digits", "seed": 3}, "digits")
        counts = np.bincount(images.y)
        np.testing.assert_array_equal(counts, np.round(np.geomspace(100, 2, 10)))
        assert len(images.y) + len(images.y_test) == 1797


class TestCrowding:
    @pytest.mark.parametrize("classes", [10, 1000])
    def test_every_class_is_one_digit_under_the_same_transformations(self, classes):
        images = crowding.transformed_digits(classes, seed=0)
        for x, y, count in (
            (images.x, images.y, crowding.TRAIN),
            (images.x_test, images.y_test, crowding.TEST),
        ):
            assert x.shape == (count, 8, 8, 1)
            np.testing.assert_array_equal(np.bincount(y), count // classes)
        digits = images.x.reshape(-1, classes, 8, 8)
        # Transformations are linear: that of a sum is the sum only if all digits share it.
        together = crowding.transformed(
            digits[0, :3].sum(axis=0, keepdims=True), 5, np.random.default_rng(1)
        )
        single = crowding.transformed(digits[0, :3], 5, np.random.default_rng(1))
        np.testing.assert_allclose(together[:, 0], single.sum(axis=1), atol=1e-5)

    def test_more_classes_than_digits_and_unknown_heads_raise(self):
        with pytest.raises(ValueError, match=r"1797 digits, .* Received: classes=2000"):
            crowding.transformed_digits(2000, seed=0)
        with pytest.raises(ValueError, match=r"Heads are plain, normalized\. Received: none"):
            crowding.run({"head": "none"}, "")

    def test_training_and_test_images_differ(self):
        images = crowding.transformed_digits(1000, seed=0)
        first = images.x[images.y == 0].reshape(-1, 64)
        test = images.x_test[images.y_test == 0].reshape(-1, 64)
        assert np.abs(first[:, None] - test).max(axis=-1).min() > 1e-3


class TestSphereFace:
    lengths, angles = st.floats(0.5, 20), st.floats(0.01, 3.13)

    def loss(self, angle, other, length, margin):
        cosines = np.cos([[angle, other]])
        outputs = np.concatenate([length * cosines, [[length]]], axis=1).astype("float32")
        loss = sphereface.margin_loss(np.array([0]), keras.ops.convert_to_tensor(outputs), margin)
        return float(keras.ops.convert_to_numpy(loss)[0])

    @given(angles, angles, lengths, st.sampled_from([1, 2, 4]))
    def test_the_margin_multiplies_the_angle_to_the_class(self, angle, other, length, margin):
        k = int(margin * angle / np.pi)
        psi = (-1) ** k * np.cos(margin * angle) - 2 * k
        correct = length * (5 * np.cos(angle) + psi) / 6
        expected = np.logaddexp(0, length * np.cos(other) - correct)
        assert self.loss(angle, other, length, margin) == pytest.approx(
            expected, rel=2e-3, abs=2e-3
        )

    def test_the_loss_increases_with_the_angle(self):
        losses = [self.loss(angle, 1.0, 4.0, 4) for angle in np.linspace(0.01, 3.13, 60)]
        assert np.all(np.diff(losses) > 0)


class TestGan:
    @pytest.mark.slow
    def test_real_images_have_distance_zero_and_one_repeated_image_has_the_lowest_score(self):
        images, _ = gan._images("digits")
        real = gan.classifier_metrics("digits", images)
        assert real["Fréchet distance"] == pytest.approx(0, abs=1e-3)
        assert 9 < real["judge's score"] <= 10
        same = gan.classifier_metrics("digits", np.repeat(images[:1], 50, axis=0))
        assert same["judge's score"] == pytest.approx(1, abs=1e-4)
        assert same["Fréchet distance"] > 10

    @pytest.mark.parametrize("fixed", ["discriminator", "generator"])
    def test_each_step_trains_one_network(self, fixed, monkeypatch):
        rates = iter([0.0, 0.1] if fixed == "discriminator" else [0.1, 0.0])
        monkeypatch.setattr(gan, "_adam", lambda steps: keras.optimizers.SGD(next(rates)))
        keras.utils.set_random_seed(0)
        generator, discriminator = gan._generator(8, 1, 4), gan._discriminator(8, 1, 4)
        # Spectral normalization changes the kernels of the discriminator in every step.
        bias = discriminator.layers[0].layer.bias
        weights = {"generator": generator.layers[-1].kernel, "discriminator": bias}
        before = {name: keras.ops.convert_to_numpy(weight) for name, weight in weights.items()}
        gan.train(generator, discriminator, gan._images("digits")[0], 3, np.random.default_rng(0))
        for name, weight in weights.items():
            moved = np.abs(keras.ops.convert_to_numpy(weight) - before[name]).max()
            assert (moved == 0) == (name == fixed)

    def test_networks_support_image_sizes_that_are_powers_of_two(self):
        for size, channels in ((8, 1), (32, 3)):
            assert gan._generator(size, channels, 8).output_shape == (None, size, size, channels)
            assert gan._discriminator(size, channels, 8).output_shape == (None, 1)


class TestFinetuning:
    def test_tasks_are_different_digits_and_train_and_test_images_are_disjoint(self):
        old, new = finetuning.tasks(seed=3, shots=5)
        digits = np.bincount(data.digit_images()[1])
        np.testing.assert_array_equal(np.bincount(old.y) + np.bincount(old.y_test), digits[:5])
        np.testing.assert_array_equal(np.bincount(new.y_test), digits[5:] // 2)
        np.testing.assert_array_equal(np.bincount(new.y), 5)
        images = [{x.tobytes() for x in part} for part in (old.x, old.x_test, new.x, new.x_test)]
        assert len(set.union(*images)) == sum(map(len, images))

    def test_a_run_without_training_changes_nothing(self, monkeypatch):
        trainings = []
        monkeypatch.setattr(finetuning, "fit", lambda *args, **options: trainings.append(options))
        config = {"variant": "hidden 10", "seed": 0, "shots": 5, "passes": 1, "rate": 0.5}
        metrics = finetuning.run(config, "").metrics
        assert metrics["mean turn °"] == metrics["change of position"] == 0
        assert metrics["old task %"] == metrics["old task before %"]
        assert trainings == [{}, {"batch": 5, "rate": 0.5}]


class TestAngles:
    def model(self, kernel):
        model = keras.Sequential([keras.Input((3,)), classifiers.UnitClassVectors(4, None)])
        model.get_layer("classes").set_weights([kernel])
        return model

    def test_angles_are_those_of_the_class_vectors_in_degrees(self):
        kernel = np.array([[1, 0, 0, -1], [0, 2, 1, 0], [0, 0, 1, 0]], "float32")
        features = np.array([[0, 3, 0], [0, 0, 5]], "float32")
        metrics = classifiers.angle_metrics(self.model(kernel), features, np.array([1, 2]))
        assert metrics["smallest angle of classes °"] == pytest.approx(45)
        assert metrics["mean nearest angle °"] == pytest.approx((90 + 45 + 45 + 90) / 4)
        assert metrics["feature to its class °"] == pytest.approx((0 + 45) / 2)

    def test_a_kernel_with_nan_has_no_angles(self):
        kernel = np.eye(3, 4, dtype="float32")
        kernel[0, 0] = np.nan
        metrics = classifiers.angle_metrics(self.model(kernel), np.ones((2, 3)), np.array([0, 1]))
        assert np.isnan(list(metrics.values())).all()


class TestStructure:
    @pytest.mark.parametrize(
        ("package", "others"),
        [
            ("experiments", {"benchmarks", "tests"}),
            ("benchmarks", {"experiments", "tests"}),
            ("workloads", {"benchmarks", "experiments", "tests"}),
        ],
    )
    def test_packages_do_not_import_each_other(self, package, others):
        files = sorted((root / package).glob("*.py"))
        assert files
        for path in files:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    imported = [alias.name for alias in node.names]
                else:
                    imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not others & {name.partition(".")[0] for name in imported}, path.name


@pytest.fixture(scope="module", params=names)
def shape(request):
    return experiment(request.param)


@pytest.fixture(scope="module")
def rows(shape):
    return report.compared_records(shape, folder / "results")


class TestResults:
    """The page and its tables agree with the recorded results."""

    def test_the_page_has_the_short_table_of_the_results(self, shape):
        page = (folder / "README.md").read_text("utf-8")
        assert report.page_section(shape, folder / "results") in page

    def test_the_file_beside_the_results_has_the_whole_table(self, shape):
        text = (folder / "results" / f"{shape.name}.md").read_text("utf-8")
        assert text == report.full_page(shape, folder / "results")

    def test_short_tables_are_short_and_every_selection_matches_a_comparison(self, shape, rows):
        shown = tables.page_table(rows, shape).rows
        assert 0 < len(shown) <= 13
        for selection in shape.page_rows:
            one = shape._replace(page_rows=(selection,))
            assert tables.page_table(rows, one).rows
            variants = set(selection.get("variant", ()))
            assert variants <= set(shape.variants)

    def test_values_of_the_short_table_are_in_the_whole_table(self, shape, rows):
        whole = [set(row) for row in tables.full_table(rows, shape).rows]
        short = tables.page_table(rows, shape)
        baselines = {k for k, name in enumerate(short.headings) if ", baseline" in name}
        for row in short.rows:
            values = {cell for k, cell in enumerate(row) if k not in baselines}
            assert any(values <= each for each in whole)

    def test_every_arm_has_five_seeds_and_they_are_paired(self, shape, rows):
        """On a GPU, the queue may have ended after any run."""
        for arm, baseline in comparison.arms(rows, shape.variants):
            assert len(arm.runs) >= (5 if arm.condition["card"] == "CPU" else 1)
            if baseline is not None:
                assert arm.runs.keys() <= baseline.runs.keys()

    def test_the_folder_of_results_holds_no_data(self):
        # `--quick` writes to a folder that is not in the repository.
        for path in set((folder / "results").iterdir()) - {folder / "results" / "quick"}:
            assert path.suffix in (".jsonl", ".md", ".png")
            assert path.stat().st_size < 500_000
