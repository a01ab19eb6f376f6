"""The tests of one package on its oldest versions, in an environment of its own: python tests/matrix/run.py mlflow"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PYTEST = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "beartype")


@dataclass(frozen=True)
class Environment:
    """What is installed, and what is run.

    Attributes:
        pins: versions, in the place of those in constraints.txt.
        free: packages that are then to be found by pip, for which constraints.txt has too new a version.
        extras: of this package.
        more: other packages.
        tests: that concern them.
        without: those of them that take long and depend on torch alone, or cannot run there.
        options: of pytest.
    """

    pins: tuple[str, ...]
    tests: tuple[str, ...]
    extras: str = ""
    free: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


LIGHTNING = tuple(
    f"integrations/test_{name}.py"
    for name in ("lightning*", "added", "factory", "packages", "settings*", "torchmetrics_lightning")
)
STORES = tuple(
    f"integrations/test_{name}.py"
    for name in ("mlflow*", "tensorboard", "sync*", "command", "keys", "pytorch_writers", "lightning_alerts")
)
# Lightning 2.1 warns so of what it imports itself.
QUIET = ("-W", "ignore:pkg_resources is deprecated", "-W", "ignore:Deprecated call to `pkg_resources")
OLD = ("setuptools<81", "fsspec<2025", "packaging<25")  # what Lightning 2.1 imports and asks for
ENVIRONMENTS = {
    "core": Environment(
        pins=(
            "numpy==1.26.0",
            "scipy==1.11.1",
            "jaxtyping==0.2.30",
            "click==8.1.0",
            "torchmetrics==1.4.0",
            "safetensors==0.4.5",
        ),
        extras="torchmetrics,safetensors",
        tests=("test_*.py", *(f"integrations/test_{name}.py" for name in ("torchmetrics", "row_sample", "command_m*"))),
        without=("test_tap_compiled*.py", "test_*ranks*.py"),
    ),
    "lightning": Environment(
        pins=("lightning==2.1.2", "pytorch-lightning==2.1.2", "jsonargparse==4.34.1", *OLD),
        extras="lightning,tensorboard,mlflow",
        more=("jsonargparse[signatures]", "rich", "scikit-learn", "psutil"),
        tests=LIGHTNING,
        options=QUIET,
    ),
    "pytorch-lightning": Environment(
        pins=("pytorch-lightning==2.1.2", "jsonargparse==4.34.1", *OLD),
        extras="tensorboard,mlflow",
        more=("pytorch-lightning", "jsonargparse[signatures]", "rich", "scikit-learn", "psutil"),
        tests=LIGHTNING,
        # Processes that they start do not have the other name.
        without=tuple(
            f"integrations/test_{name}.py"
            for name in ("added", "factory", "packages", "lightning_ranks", "lightning_cli", "lightning_workers")
        ),
        options=(*QUIET, "-p", "matrix.as_lightning"),
    ),
    "mlflow": Environment(
        pins=(
            "mlflow==2.22.0",
            "mlflow-skinny==2.22.0",
            "tensorboard==2.14.0",
            "numpy==1.26.4",
            "sqlalchemy<2.1",
            "setuptools<81",
        ),
        free=(
            "pyarrow",
            "packaging",
            "protobuf",
            "pandas",
            "cachetools",
            "gunicorn",
            "importlib_metadata",
            "scipy",
            "scikit-learn",
            "matplotlib",
            "contourpy",
        ),
        extras="lightning,tensorboard,mlflow",
        tests=STORES,
    ),
}
"""What is oldest, by name; the newest of everything is what `make test` runs on."""


def main(name, *arguments):
    environment, venv = ENVIRONMENTS[name], Path(f".venv-matrix-{name}")
    python, wanted = str((venv / "bin" / "python").absolute()), constraints_of(environment)
    constraints, installed = Path("build") / f"matrix-{name}.txt", venv / ".installed"
    if not installed.exists() or installed.read_text() != wanted:
        constraints.parent.mkdir(exist_ok=True)
        constraints.write_text(wanted)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        what = ["-e", f".[{environment.extras}]", *PYTEST, *environment.more, "setuptools"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", str(constraints), *what], check=True)
        installed.write_text(wanted)
    files = sorted(map(str, _found(environment.tests) - _found(environment.without)))
    return subprocess.run([python, "-m", "pytest", *environment.options, *files, *arguments], check=False).returncode


def constraints_of(environment):
    """Return constraints.txt with the environment's own in the place of those for the same packages."""
    apart = {_name(each) for each in (*environment.pins, *environment.free)}
    lines = Path("constraints.txt").read_text().splitlines()
    return "\n".join([*(line for line in lines if _name(line) not in apart), *environment.pins]) + "\n"


def _found(patterns):
    return {path for each in patterns for path in Path("tests").glob(each)}


def _name(requirement):
    return re.split(r"[\[=<>! ]", requirement)[0].lower().replace("_", "-")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
