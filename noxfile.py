"""Tasks of developers and of CI: `nox --list` names them, `nox -s lint` runs one.

Sessions run in the active environment, which `pip install -e ".[dev]"` prepares. Only `oldest` and
`torch` make their own environments. Sessions with a backend run on TensorFlow and JAX:
`nox -s tests`, or on one: `nox -s "tests(jax)"`. Some sessions take arguments after `--`; their
descriptions say which.
"""

import os
import shutil
import tarfile
import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
# Git and the linters ignore this folder.
nox.options.envdir = "build/nox"
nox.options.sessions = ["lint", "tests"]

BACKENDS = ("tensorflow", "jax")
# XLA compiles in half the time without its optimizations.
QUICK_COMPILATION = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
on_each_backend = nox.parametrize("backend", BACKENDS, ids=BACKENDS)


def scratch(session: nox.Session, name: str) -> Path:
    """Returns the path of a folder for results, which all sessions share."""
    return session.cache_dir.resolve() / name


@nox.session
@on_each_backend
def tests(session: nox.Session, backend: str) -> None:
    """Run the quick tests; arguments go to pytest."""
    session.run("pytest", *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session
@on_each_backend
def slow(session: nox.Session, backend: str) -> None:
    """Run the slow tests, without those of other packages; arguments go to pytest."""
    command = ["pytest", "--numprocesses=1", "-m", "slow", "--ignore-glob=*test_ecosystem*"]
    session.run(*command, *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session
@on_each_backend
def ecosystem(session: nox.Session, backend: str) -> None:
    """Run the slow tests with KerasHub, KerasTuner, scikit-learn and exported models."""
    paths = sorted(map(str, Path("tests").glob("test_ecosystem*.py")))
    command = ["pytest", "--numprocesses=1", "-m", "slow", *paths]
    session.run(*command, *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session(venv_backend="uv", reuse_venv=True)
def torch(session: nox.Session) -> None:
    """Run the quick tests on PyTorch; arguments go to pytest, `-m "not once"` adds slow ones."""
    # PyTorch needs 6 GB, so the other sessions do without it.
    session.install("--editable", ".[torch,test-tools]")
    command = ["pytest", "-m", "not slow and not once"]
    session.run(*command, *session.posargs, env={"KERAS_BACKEND": "torch"})


@nox.session(venv_backend="uv", reuse_venv=True)
def oldest(session: nox.Session) -> None:
    """Run some tests with the lower bounds of pyproject.toml; arguments are backends."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["tensorflow"], *extras["jax"]]
    tools = ["pytest", "pytest-xdist", "hypothesis", "scipy", "scikit-learn"]
    session.install(*[line.replace(">=", "==") for line in bounds], "--editable", ".", *tools)
    modules = [
        "tests/test_backend.py",
        "tests/energies/test_energy.py",
        "tests/regularizers/test_base.py",
        "tests/energies/test_neurons.py",
        "tests/models/test_factor_schedule.py",
    ]
    for backend in session.posargs or BACKENDS:
        session.run("pytest", "--numprocesses=1", *modules, env={"KERAS_BACKEND": backend})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    folder = scratch(session, "site")
    command = ["mkdocs", "build", "--strict", "--site-dir", folder]
    session.run(*command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def distributions(session: nox.Session) -> None:
    """Build sdist and wheel, check them, and run the command from the wheel."""
    built, wheel, sdist = (scratch(session, name) for name in ("dist", "wheel", "sdist"))
    for folder in (built, wheel, sdist):
        shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", built, ".")
    session.run("twine", "check", "--strict", *built.iterdir())
    # Users get the built wheel. Its tests are those of the sdist, without the source.
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", wheel]
    session.run(*command, *built.glob("*.whl"))
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(sdist, filter="data")
    [folder] = sdist.iterdir()
    for package in ("keras_mhe", "keras_mhe_command"):
        shutil.rmtree(folder / package)
    environment = {"PYTHONPATH": str(wheel)}
    with session.chdir(folder):
        command = ["python", "-m", "keras_mhe"]
        session.run(*command, "demo", "--seeds", "1", "--epochs", "2", env=environment)
        session.run(*command, "inspect", "--help", env=environment)


@nox.session
@on_each_backend
def wheel(session: nox.Session, backend: str) -> None:
    """Test the wheel that `distributions` built, its programs optimized as users run them."""
    folders = list(scratch(session, "sdist").glob("*"))
    if not folders:
        session.error("There is no wheel yet. Run the session `distributions` first.")
    environment = {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(scratch(session, "wheel")),
        # The suite compiles without optimizations unless the flags are set.
        "XLA_FLAGS": "",
    }
    modules = [
        "tests/test_package.py",
        "tests/energies/test_energy.py",
        "tests/energies/test_pairs.py",
        "tests/regularizers/test_uniformity.py",
    ]
    with session.chdir(folders[0]):
        session.run("pytest", "--numprocesses=1", *modules, env=environment)
        command = ["pytest", "--numprocesses=0", "-m", "slow"]
        session.run(*command, "tests/test_papers.py", env=environment)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run notebooks with few training steps; arguments are their paths."""
    # The slow tests run docs/large_layers.md, which covers the sixth notebook.
    paths = session.posargs or sorted(Path("notebooks").glob("0[1-57]*.ipynb"))
    session.run("python", "notebooks/execute.py", "--quick", *paths, env=QUICK_COMPILATION)


@nox.session
def experiments(session: nox.Session) -> None:
    """Run two experiments in short; the slow tests run the others."""
    # JAX starts in half the time of TensorFlow.
    environment = {**QUICK_COMPILATION, "KERAS_BACKEND": "jax"}
    out = ["--out", scratch(session, "experiments")]
    command = ["python", "-m", "experiments"]
    cnn9 = ["cnn9", "--quick", "--seeds", "1", "--variants", "baseline,half-space MHE s=2"]
    session.run(*command, *cnn9, *out, env=environment)
    session.run(*command, "correlation", "--quick", "--seeds", "1", *out, env=environment)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks in short: whether they run, not how fast."""
    command = ["python", "-m", "benchmarks", "--quick", "--out", scratch(session, "benchmarks")]
    session.run(*command, env=QUICK_COMPILATION)


@nox.session
@on_each_backend
def gpu(session: nox.Session, backend: str) -> None:
    """Run measurements and experiments for a GPU in short, on the CPU: whether they run."""
    out = scratch(session, "gpu")
    shutil.rmtree(out, ignore_errors=True)
    command = ["python", "-m", "benchmarks", "gpu", "--quick", "--out", out]
    session.run(*command, env={"KERAS_BACKEND": backend})
    # The experiments' trainer for a GPU needs JAX.
    if backend == "jax":
        command = ["python", "-m", "experiments", "gpu", "--quick", "--out", out / "experiments"]
        session.run(*command, env={"KERAS_BACKEND": backend, **QUICK_COMPILATION})
