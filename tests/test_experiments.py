"""Experiments: the runner proves itself, pairs are compared as statistics asks, data are real."""

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
from probes import normals
from rich.console import Console
from scipy import stats

pytestmark = pytest.mark.once

root = Path(__file__).parents[1]
folder = root / "experiments"
# Behind the installed package, which is what is tested.
sys.path.append(str(root))


def module(name):
    return pytest.importorskip(f"experiments.{name}", reason="experiments are in a checkout only")


cnn9, imbalance, crowding = map(module, ("cnn9", "imbalance", "crowding"))
sphereface, gan = map(module, ("sphereface_plus", "gan"))
comparing, data, records, report = map(module, ("comparing", "data", "records", "report"))
running = module("running")

names = ["cnn9", "imbalance", "crowding", "sphereface_plus", "gan", "correlation"]


def experiment(name):
    return module(name).experiment


def record(variant, seed, accuracy, **condition):
    config = {"experiment": "none", **condition, "variant": variant, "seed": seed}
    return {"config": config, "figures": {"accuracy %": accuracy}, "machine": "this one"}


def program(*options):
    """The program in a process group of its own, on JAX, which starts in half the time."""
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
    """The same seed gives the same numbers, and a run that was killed ends in the same table."""

    options = ("imbalance", "--passes", "2", "--features", "3", "--seeds", "1")
    options += ("--variants", "baseline,MHE(10)")

    def table(self, path):
        found = list(records.read(path / "imbalance.jsonl").values())
        return comparing.compare(found, experiment("imbalance")).to_markdown()

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="asks for process groups")
    def test_killed_and_whole_runs_end_in_the_same_table(self, tmp_path):
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        file = killed / "imbalance.jsonl"
        process = program(*self.options, "--workers", "1", "--out", str(killed))
        deadline = time.monotonic() + 300
        while not (file.exists() and file.read_text().count("\n")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate()
        # Its workers end by themselves.
        while alive(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = file.read_text().splitlines()
        assert len(done) == 1
        # What a kill in the middle of writing leaves.
        with file.open("a") as stream:
            stream.write(done[0][:50])
        for path, workers in ((killed, "1"), (whole, "2")):
            process = program(*self.options, "--workers", workers, "--out", str(path))
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0
            assert ("1 of 2 runs" in said) == (path == killed)
        assert file.read_text().splitlines()[:1] == done
        assert len(file.read_text().splitlines()) == 2
        assert self.table(killed) == self.table(whole)
        one, other = (records.read(path / "imbalance.jsonl") for path in (killed, whole))
        assert {k: v["figures"] for k, v in one.items()} == {
            k: v["figures"] for k, v in other.items()
        }

    def test_what_ends_beside_a_failure_is_kept(self, tmp_path, monkeypatch):
        futures = []

        class Pool(ThreadPoolExecutor):
            def __init__(self, workers, *args, **kwargs):
                super().__init__(workers)

            def submit(self, *args, **kwargs):
                futures.append(super().submit(*args, **kwargs))
                return futures[-1]

        def work(config, sources):
            if config["seed"] == 0:
                raise ValueError("seed 0")
            # Ends after the rest is called off.
            deadline = time.monotonic() + 60
            while len(futures) < 100 or not futures[-1].cancelled():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return record("baseline", config["seed"], 1.0)

        monkeypatch.setattr(running, "ProcessPoolExecutor", Pool)
        monkeypatch.setattr(running, "_work", work)
        path = tmp_path / "a.jsonl"
        configs = [record("baseline", seed, 1.0)["config"] for seed in range(100)]
        with pytest.raises(ValueError, match="seed 0"):
            running.perform(configs, {}, path, 2, Console(quiet=True))
        # One ran beside the failure, one began before it was seen; no other did.
        assert sorted(each["config"]["seed"] for each in records.read(path).values()) == [1, 2]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["imbalance", "--features", "0"], "positive ints with commas.*--features 0"),
            (["crowding", "--variants", "none"], "Variants are baseline, .*Received: none"),
            # Which a worker says.
            (["gan", "--data", "/nowhere"], "Images are .*Received: /nowhere"),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_sentence(self, options, sentence, tmp_path):
        process = program(*options, "--seeds", "1", "--out", str(tmp_path))
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2
        assert "Traceback" not in said
        # Without the frame of the message.
        words = " ".join(said.replace("│", " ").split())
        assert re.search(sentence, words)


class TestEveryExperiment:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["crowding", "sphereface_plus", "gan"])
    def test_a_quick_run_gives_finite_figures(self, name):
        """The others run as programs: imbalance above, CNN-9 and correlation in `.ci/run`."""
        shape = experiment(name)
        grid = {part: shape.quick.get(part, values)[0] for part, values in shape.grid.items()}
        config = {"experiment": name, **grid, "variant": shape.variants[-1], "seed": 0}
        figures = shape.run(config, "digits").figures
        assert set(shape.headlines) <= set(figures)
        assert np.all(np.isfinite(list(map(float, figures.values()))))


class TestRecords:
    def test_half_a_line_is_no_record_and_is_taken_away(self, tmp_path):
        path = tmp_path / "a.jsonl"
        records.append(path, record("baseline", 0, 1.0))
        path.write_text(path.read_text() + '{"config": {"see')
        assert len(records.read(path)) == 1
        records.mend(path)
        records.append(path, record("baseline", 1, 2.0))
        lines = path.read_text().splitlines()
        assert [json.loads(line)["figures"]["accuracy %"] for line in lines] == [1.0, 2.0]

    def test_two_results_of_one_config_are_an_error(self, tmp_path):
        path = tmp_path / "a.jsonl"
        for accuracy in (1.0, 2.0):
            records.append(path, record("baseline", 0, accuracy))
        with pytest.raises(ValueError, match=r"two different results of one config.*line 2"):
            records.read(path)

    def test_the_order_of_a_config_says_nothing(self):
        assert records.identity({"a": 1, "b": 2}) == records.identity({"b": 2, "a": 1})


class TestPairs:
    @given(st.integers(2, 9), st.integers(0, 2**32), st.floats(-20, 20))
    def test_intervals_are_those_of_the_paired_t_test(self, count, seed, shift):
        rng = np.random.default_rng(seed)
        without, gains = rng.uniform(0, 100, count), rng.normal(shift, 5, count)
        rows = [record("baseline", k, value) for k, value in enumerate(without)]
        rows += [record("MHE", k, without[k] + gain) for k, gain in enumerate(gains)]
        rng.shuffle(rows)
        [_, (arm, baseline)] = comparing.arms(rows, ("baseline", "MHE"))
        ours = arm.gain(baseline, "accuracy %")
        test = stats.ttest_1samp(gains, 0)
        interval = test.confidence_interval()
        np.testing.assert_allclose(
            [ours.mean, ours.low, ours.high], [np.mean(gains), *interval], rtol=1e-6, atol=1e-9
        )
        sure = "higher" if interval.low > 0 else "lower" if interval.high < 0 else "unclear"
        assert ours.difference.endswith(sure)

    def test_only_seeds_of_both_are_paired(self):
        rows = [record("baseline", k, 50.0 + k) for k in (0, 1, 2)]
        rows += [record("MHE", k, 51.0 + k) for k in (1, 2, 3)]
        [_, (arm, baseline)] = comparing.arms(rows, ("baseline", "MHE"))
        assert arm.gain(baseline, "accuracy %") == (1, 0, 1, 1)

    def test_runs_of_two_machines_are_no_pairs(self):
        rows = [record("baseline", k, 50.0 + k) for k in (0, 1)]
        rows += [record("MHE", k, 51.0 + k) | {"machine": "another"} for k in (0, 1)]
        [_, (arm, baseline)] = comparing.arms(rows, ("baseline", "MHE"))
        assert arm.gain(baseline, "accuracy %").difference == "no pairs"

    def test_runs_that_learned_nothing_are_counted_and_have_no_interval(self):
        rows = [record("baseline", k, 50.0 + k) for k in range(3)]
        rows += [record("MHE", k, accuracy) for k, accuracy in enumerate((10.0, 60.0, np.nan))]
        shape = experiment("imbalance")._replace(
            variants=("baseline", "MHE"), headlines=("accuracy %",)
        )
        [_, line] = comparing.compare(rows[:-1], shape).cells
        assert line[-1] == "-15.50, 1 of 2 ruined"
        [_, (arm, _)] = comparing.arms(rows, shape.variants)
        assert arm.ruined(shape) == 2
        assert not arm.ruined(shape._replace(chance=None))

    def test_one_pair_says_nothing(self):
        rows = [record("baseline", 0, 50.0), record("MHE", 0, 90.0)]
        [_, (arm, baseline)] = comparing.arms(rows, ("baseline", "MHE"))
        assert arm.gain(baseline, "accuracy %").difference == "+40.00, one pair"
        assert str(arm.figure("accuracy %")) == "90.00"

    def test_baselines_are_of_the_same_condition_and_rows_in_order(self):
        rows = [
            record(variant, seed, features * share, features=features)
            for variant, share in (("MHE", 11.0), ("baseline", 10.0))
            for seed in (1, 0)
            for features in (32, 2, 8)
        ]
        shape = experiment("imbalance")._replace(
            variants=("baseline", "MHE"), headlines=("accuracy %",)
        )
        table = comparing.compare(rows, shape)
        assert table.headings[:3] == ["features", "variant", "runs"]
        assert [line[0] for line in table.cells] == ["2", "2", "8", "8", "32", "32"]
        assert [line[4][:5] for line in table.cells] == ["", "+2.00", "", "+8.00", "", "+32.0"]
        assert table == comparing.compare(rows[::-1], shape)


class TestData:
    def picture(self, shade):
        ramp = np.arange(32, dtype="uint8")[:, None, None] * np.ones((1, 32, 3), "uint8")
        return ramp + np.array(shade, "uint8")

    def test_folders_and_archives_hold_the_same(self, tmp_path):
        shades = {"train": [(0, 10), (1, 60), (1, 90)], "test": [(0, 30), (1, 200)]}
        arrays = {}
        for part, pictures in shades.items():
            files = []
            for number, (label, shade) in enumerate(pictures):
                path = tmp_path / "some" / part / f"class{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.picture(shade)).save(path)
                files.append(path.read_bytes())
            arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), "uint8")
            arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
            arrays[f"{part}_labels"] = np.array([label for label, _ in pictures], "uint8")
        np.savez(tmp_path / "some.npz", **arrays)
        for source in ("some", "some.npz"):
            images = data.cifar(str(tmp_path / source))
            for part, x, y in (("train", *images[:2]), ("test", *images[2:])):
                expected = [self.picture(shade) for _, shade in shades[part]]
                np.testing.assert_array_equal(x, expected)
                np.testing.assert_array_equal(y, [label for label, _ in shades[part]])
            assert data.by_name([str(tmp_path / source)]) == {"some": str(tmp_path / source)}

    def test_archives_of_arrays_are_taken_as_they_are(self, tmp_path):
        arrays = {
            "x_train": np.stack([self.picture(shade) for shade in (10, 60, 90)]),
            "y_train": np.array([[0], [1], [1]]),
            "x_test": self.picture(30)[None],
            "y_test": np.array([[1]]),
        }
        np.savez(tmp_path / "some.npz", **arrays)
        for found, expected in zip(
            data.cifar(str(tmp_path / "some.npz")), arrays.values(), strict=True
        ):
            shape = expected.shape[: 1 if expected.ndim == 2 else 4]
            np.testing.assert_array_equal(found, expected.reshape(shape))

    def test_what_is_no_data_is_said_in_a_sentence(self, tmp_path):
        np.savez(tmp_path / "other.npz", images=np.zeros(3))
        for name, sentence in (
            ("nothing", r"Images are .* Received: .*nothing"),
            ("other.npz", r"Archives have .* Received: .*other.npz with images"),
        ):
            with pytest.raises(ValueError, match=sentence):
                data.cifar(str(tmp_path / name))

    @pytest.mark.parametrize("sources", [["a/cifar10.npz"], ["digits", "b/digits"], ["a/x", "b/x"]])
    def test_two_data_of_one_name_are_refused(self, sources):
        with pytest.raises(ValueError, match=f"Received: {sources[-1]}"):
            data.by_name(sources)

    def test_enlarged_digits_are_the_digits(self):
        images, (small, labels) = data.cifar("digits"), data.digits()
        assert images.x.shape == (1297, 32, 32, 3)
        assert images.x_test.shape == (500, 32, 32, 3)
        np.testing.assert_array_equal(images.y_test, labels[-500:])
        np.testing.assert_allclose(images.x[:, ::4, ::4, 0] / 255, small[:-500, ..., 0], atol=2e-3)


class TestCnn9:
    def test_a_pass_takes_every_image_once_and_crops_it(self):
        images = np.arange(1, 257, dtype="float32")[:, None, None, None] * np.ones((1, 8, 8, 3))
        batches = cnn9._Batches(images, np.arange(256), steps=1, seed=0)
        seen, crops = [], []
        for _ in range(4):
            assert len(batches) == 1
            x, y = batches[0]
            seen.append(y)
            crops.append(x)
            np.testing.assert_array_equal(x.max(axis=(1, 2, 3)), y + 1)
            assert set(np.unique(x)) <= {0, *np.arange(1, 257)}
            batches.on_epoch_end()
        for half in (0, 2):
            assert sorted(np.concatenate(seen[half : half + 2])) == list(range(256))
        assert not np.array_equal(seen[0], seen[2])
        again = cnn9._Batches(images, np.arange(256), steps=4, seed=0)
        for index in range(4):
            np.testing.assert_array_equal(again[index][0], crops[index])

    def test_half_of_the_images_are_mirrored(self):
        ramp = np.arange(8.0)[None, None, :, None] * np.ones((128, 8, 8, 3))
        x, _ = cnn9._Batches(ramp, np.zeros(128, int), steps=1, seed=1)[0]
        falling = np.sum(np.diff(x[..., 0], axis=2) < 0, axis=(1, 2)) > 8
        assert 40 < falling.sum() < 88

    @pytest.mark.parametrize("variant", cnn9.VARIANTS)
    def test_every_variant_is_a_pair_of_regularizers(self, variant):
        kernel = normals(3, 3, 8, 4)
        for regularizer in cnn9.VARIANTS[variant]():
            if variant == "baseline":
                assert regularizer is None
            elif getattr(regularizer, "learner", None) is None:
                assert np.isfinite(energy := float(regularizer(kernel)))
                assert energy != 0

    @pytest.mark.parametrize(
        "variant",
        [
            "baseline",
            *[
                pytest.param(name, marks=pytest.mark.slow)
                for name in ("orthogonal", "RP-CoMHE", "MHP")
            ],
        ],
    )
    def test_every_variant_adds_to_weight_decay_of_the_same_start(self, variant):
        def decay(model):
            norms = [np.sum(np.square(w)) for w in model.get_weights() if w.ndim == 4]
            return 2.5e-4 * sum(norms)

        keras.utils.set_random_seed(0)
        model = cnn9._model(variant, width=2, classes=10, steps=20, rate=0.1)
        keras.utils.set_random_seed(0)
        plain = cnn9._model("baseline", width=2, classes=10, steps=20, rate=0.1)
        kernels = [[w for w in each.get_weights() if w.ndim == 4] for each in (model, plain)]
        for ours, theirs in zip(*kernels, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        energies = float(sum(map(float, model.losses))) - decay(plain)
        if variant == "baseline":
            assert energies == pytest.approx(0, abs=1e-4)
        else:
            assert abs(energies) > 1e-3

    def test_the_rate_falls_where_that_of_the_papers_does(self):
        model = cnn9._model("baseline", width=2, classes=10, steps=42_500, rate=0.1)
        schedule = model.optimizer._learning_rate
        for step, rate in ((20_000, 0.1), (20_001, 0.01), (30_001, 1e-3), (37_501, 1e-4)):
            assert float(schedule(step)) == pytest.approx(rate)

    def test_a_run_that_ends_without_finite_kernels_is_recorded_as_such(self):
        curves = {"layer 1 position": [1.0, None], "layer 1 smallest": [50.0, None]}
        assert np.isnan(list(cnn9._ends(curves).values())).all()
        curves |= {"layer 2 position": [1.0, 3.0], "layer 2 smallest": [50.0, 40.0]}
        assert cnn9._ends(curves) == {"mean position": 3, "smallest angle °": 40}

    @pytest.mark.parametrize(
        ("steps", "images", "sentence"),
        [
            (30, 512, r"multiple of 20\. Received: steps=30"),
            (20, 2000, r"from 128 to all 1297 images\. Received: images=2000"),
            (20, 100, r"from 128 to all 1297 images\. Received: images=100"),
        ],
    )
    def test_what_leaves_a_rest_or_lacks_images_is_refused(self, steps, images, sentence):
        config = {"variant": "baseline", "seed": 0, "steps": steps, "images": images}
        with pytest.raises(ValueError, match=sentence):
            cnn9.run(config, "digits")


class TestImbalance:
    def test_classes_fall_geometrically_and_nothing_is_in_both_sets(self):
        images = imbalance._split({"data": "digits", "seed": 3}, "digits")
        counts = np.bincount(images.y)
        np.testing.assert_array_equal(counts, np.round(np.geomspace(100, 2, 10)))
        assert len(images.y) + len(images.y_test) == 1797


class TestCrowding:
    @pytest.mark.parametrize("classes", [10, 1000])
    def test_every_class_is_one_digit_seen_in_the_same_ways(self, classes):
        images = crowding.identities(classes, seed=0)
        for x, y, count in (
            (images.x, images.y, crowding.TRAIN),
            (images.x_test, images.y_test, crowding.TEST),
        ):
            assert x.shape == (count, 8, 8, 1)
            np.testing.assert_array_equal(np.bincount(y), count // classes)
        people = images.x.reshape(-1, classes, 8, 8)
        # A view of a sum is the sum of views only if it is the same view.
        together = crowding._views(
            people[0, :3].sum(axis=0, keepdims=True), 5, np.random.default_rng(1)
        )
        single = crowding._views(people[0, :3], 5, np.random.default_rng(1))
        np.testing.assert_allclose(together[:, 0], single.sum(axis=1), atol=1e-5)

    def test_more_classes_than_digits_and_unknown_heads_are_refused(self):
        with pytest.raises(ValueError, match=r"1797 digits to see\. Received: classes=2000"):
            crowding.identities(2000, seed=0)
        with pytest.raises(ValueError, match=r"Heads are plain, normalised\. Received: none"):
            crowding.run({"head": "none"}, "")

    def test_training_and_test_views_differ(self):
        images = crowding.identities(1000, seed=0)
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
    def test_the_angle_to_the_right_class_counts_so_many_times(self, angle, other, length, margin):
        k = int(margin * angle / np.pi)
        psi = (-1) ** k * np.cos(margin * angle) - 2 * k
        right = length * (5 * np.cos(angle) + psi) / 6
        expected = np.logaddexp(0, length * np.cos(other) - right)
        assert self.loss(angle, other, length, margin) == pytest.approx(
            expected, rel=2e-3, abs=2e-3
        )

    def test_more_angle_is_never_better(self):
        losses = [self.loss(angle, 1.0, 4.0, 4) for angle in np.linspace(0.01, 3.13, 60)]
        assert np.all(np.diff(losses) > 0)


class TestGan:
    @pytest.mark.slow
    def test_real_images_are_at_no_distance_and_one_image_has_the_least_score(self):
        images, _ = gan._images("digits")
        real = gan.judged("digits", images)
        assert real["Fréchet distance"] == pytest.approx(0, abs=1e-3)
        assert 9 < real["judge's score"] <= 10
        same = gan.judged("digits", np.repeat(images[:1], 50, axis=0))
        assert same["judge's score"] == pytest.approx(1, abs=1e-4)
        assert same["Fréchet distance"] > 10

    @pytest.mark.parametrize("still", ["discriminator", "generator"])
    def test_each_step_moves_one_network(self, still, monkeypatch):
        rates = iter([0.0, 0.1] if still == "discriminator" else [0.1, 0.0])
        monkeypatch.setattr(gan, "_adam", lambda steps: keras.optimizers.SGD(next(rates)))
        keras.utils.set_random_seed(0)
        makes, tells = gan._generator(8, 1, 4), gan._discriminator(8, 1, 4)
        # Not kernels of the discriminator, which are divided by their norms at every step.
        bias = tells.layers[0].layer.bias
        weights = {"generator": makes.layers[-1].kernel, "discriminator": bias}
        before = {name: keras.ops.convert_to_numpy(weight) for name, weight in weights.items()}
        gan.train(makes, tells, gan._images("digits")[0], 3, np.random.default_rng(0))
        for name, weight in weights.items():
            moved = np.abs(keras.ops.convert_to_numpy(weight) - before[name]).max()
            assert (moved == 0) == (name == still)

    def test_networks_fit_images_of_any_power_of_two(self):
        for size, channels in ((8, 1), (32, 3)):
            assert gan._generator(size, channels, 8).output_shape == (None, size, size, channels)
            assert gan._discriminator(size, channels, 8).output_shape == (None, 1)


class TestResults:
    """What the page says is what the lines of results say."""

    @pytest.mark.parametrize("name", names)
    def test_the_page_has_the_table_of_the_results(self, name):
        page = (folder / "README.md").read_text("utf-8")
        assert report.section(experiment(name), folder / "results") in page

    @pytest.mark.parametrize("name", names)
    def test_every_arm_has_five_seeds_and_they_are_pairs(self, name):
        shape = experiment(name)
        rows = shape.seen_as(list(records.read(report.path_of(shape, folder / "results")).values()))
        for arm, baseline in comparing.arms(rows, shape.variants):
            assert len(arm.runs) >= 5
            if baseline is not None:
                assert arm.runs.keys() <= baseline.runs.keys()

    def test_no_data_are_among_the_results(self):
        # What `--quick` leaves there is no part of the repository.
        for path in set((folder / "results").iterdir()) - {folder / "results" / "quick"}:
            assert path.suffix in (".jsonl", ".png")
            assert path.stat().st_size < 500_000
