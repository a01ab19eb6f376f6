"""Run one of the targets beside this file: python tests/fuzz/run.py journal 1000000"""

import importlib
import sys
from pathlib import Path

import atheris

LONGEST_S = 10
"""An input that takes longer is a hang."""


def main(name, runs):
    folder = Path("build") / "fuzz" / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        target = importlib.import_module(name)
        for number, seed in enumerate(target.SEEDS):
            (folder / "corpus" / f"seed-{number}").write_bytes(seed)
            target.check(seed)  # which imports what is imported where it is used
    getattr(target, "warm", lambda: None)()
    flags = [f"-atheris_runs={runs}", f"-max_len={target.LENGTH}", f"-timeout={LONGEST_S}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(folder / "corpus")], target.check)
    atheris.Fuzz()


INSTRUMENTED = {
    "journal": ["uniformity_callbacks", "json"],
    "keys": ["uniformity_callbacks.integrations.keys", "mlflow.utils.validation"],
    "options": ["uniformity_callbacks", "yaml"],
}
"""Whose branches are followed, of each target."""

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
