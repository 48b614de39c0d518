"""Quick runs give no numbers to believe. The command for GPUs keeps each result and continues."""

import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rich.console

pytestmark = pytest.mark.once

# At the end of the path, so that tests import the installed package.
sys.path.append(str(Path(__file__).parents[1]))
gpu = pytest.importorskip("benchmarks.gpu", reason="only a checkout has benchmarks")


class TestQuickRuns:
    @pytest.fixture
    def command(self):
        return pytest.importorskip("benchmarks.__main__")

    def test_results_go_to_the_checkout_only_if_they_are_measurements(self, command, tmp_path):
        assert command.results_folder(None, quick=False) == Path("benchmarks/results")
        assert command.results_folder(tmp_path, quick=False) == tmp_path
        assert command.results_folder(tmp_path, quick=True) == tmp_path
        temporary = command.results_folder(None, quick=True)
        assert Path(tempfile.gettempdir()) in temporary.parents
        temporary.rmdir()

    def test_ratios_are_printed_only_if_they_are_measurements(self, command):
        """The ratio of ResNet50 with two small images contradicts that of the documentation."""
        row = {
            **{"network": "ResNet50", "energies": "exact", "batch": 2, "seconds": 0.5},
            **{"ratio": 4.55, "ratio_quartiles": [4.5, 4.6]},
            **{"regularize_seconds": 0.1, "first_step_seconds": 9.0},
        }
        printed = {}
        for quick in (True, False):
            console = rich.console.Console(file=io.StringIO(), width=200)
            command.show(console, command._network_table([row]), quick)
            printed[quick] = console.file.getvalue()
        assert "4.55" in printed[False]
        assert "Training steps" in printed[True]
        assert printed[True].endswith(". Rows: 1\n")


def recorded(folder):
    [path] = folder.glob("gpu-*.json")
    return json.loads(path.read_text("utf-8"))


class TestRun:
    @pytest.fixture
    def calls(self):
        return []

    @pytest.fixture
    def case(self, calls):
        def build(name, seconds=0.0, error=None):
            def measure():
                calls.append(name)
                if error is not None:
                    raise error
                return [{"name": name}]

            return gpu.Case(name, seconds, measure)

        return build

    def test_results_say_on_which_machine_they_were_measured(self, case, tmp_path):
        assert gpu.run(1.0, True, tmp_path, [case("a")])
        results = recorded(tmp_path)
        assert results["cases"]["a"]["rows"] == [{"name": "a"}]
        machine = results["machines"][results["cases"]["a"]["machine"]]
        assert machine["backend"]
        assert machine["versions"]["keras"]

    def test_a_run_that_is_killed_keeps_what_was_done_and_the_next_one_continues(
        self, case, calls, tmp_path
    ):
        with pytest.raises(KeyboardInterrupt):
            gpu.run(1.0, True, tmp_path, [case("a"), case("b", error=KeyboardInterrupt())])
        assert list(recorded(tmp_path)["cases"]) == ["a"]
        assert gpu.run(1.0, True, tmp_path, [case("a"), case("b")])
        assert calls == ["a", "b", "b"]
        assert list(recorded(tmp_path)["cases"]) == ["a", "b"]

    def test_a_failing_measurement_is_recorded_and_repeated_next_time(self, case, calls, tmp_path):
        error = RuntimeError("out of memory")
        assert not gpu.run(1.0, True, tmp_path, [case("a", error=error), case("b")])
        results = recorded(tmp_path)["cases"]
        assert results["a"]["error"] == "RuntimeError: out of memory"
        assert results["b"]["rows"]
        assert gpu.run(1.0, True, tmp_path, [case("a"), case("b")])
        assert calls == ["a", "b", "a"]
        assert "error" not in recorded(tmp_path)["cases"]["a"]

    def test_tests_that_were_stopped_are_recorded_and_repeated_next_time(self, tmp_path):
        rows = [[{"finished": False, "passed": 3}], [{"finished": True, "passed": 5}]]
        stopped = gpu.Case("tests", 0.0, lambda: rows.pop(0))
        assert not gpu.run(1.0, True, tmp_path, [stopped])
        assert recorded(tmp_path)["cases"]["tests"]["rows"][0]["passed"] == 3
        assert gpu.run(1.0, True, tmp_path, [stopped])
        assert recorded(tmp_path)["cases"]["tests"]["rows"][0]["passed"] == 5

    def test_no_measurement_starts_that_would_not_end_in_time(self, case, calls, tmp_path):
        cases = [case("long", seconds=100.0), case("short", seconds=1.0)]
        assert not gpu.run(0.5, True, tmp_path, cases)
        assert calls == ["short"]


@pytest.mark.slow
def test_outcomes_and_reasons_of_tests_are_recorded():
    device_tests = pytest.importorskip("benchmarks.device_tests")
    folder = Path(__file__).parent / "test_of_device_tests.py"
    folder.write_text(
        "import numpy as np, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): np.testing.assert_allclose([1.5], [1])\n"
        "@pytest.mark.parametrize('x', ['a - b'])\n"
        "def test_broken(x, missing): pass\n"
    )
    try:
        [row] = device_tests.measure([f"tests/{folder.name}"], 60.0)
    finally:
        folder.unlink()
    assert (row["passed"], row["failed"], row["error"], row["finished"]) == (1, 1, 1, True)
    assert [name.split("::")[1] for name in sorted(row["failures"])] == [
        "test_bad",
        "test_broken[a - b]",
    ]
    assert any("1.5 (ACTUAL)" in reason for reason in row["reasons"])


def test_names_of_measurements_are_unique():
    """The results of a measurement are found by its name."""
    for quick in (True, False):
        names = [case.name for case in gpu.cases(quick)]
        assert len(set(names)) == len(names)


@pytest.mark.slow
def test_emulated_precisions_have_the_errors_of_the_hardware():
    """On an H100, TF32 lost three digits, and the others none: `benchmarks/GPU.md`."""
    precision = pytest.importorskip("benchmarks.precision")
    rows = precision.measure((3, 300), quick=True)
    errors = {
        row["directions"]: row["gradient_error"]
        for row in rows
        if row["cosines"] == row["directions"]
    }
    assert errors["TF32"] > 100 * errors["float32"]
    assert np.all([errors[name] < 3 * errors["float32"] for name in ("TF32 x 3", "bfloat16 x 6")])
