import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import uniformity_callbacks

PACKAGE = Path(uniformity_callbacks.__file__).parent
ORDER = [
    "names",
    "glossary",
    "masking",
    "schedules",
    "polar",
    "spectrum",
    "flat",
    "absorption",
    "sample_size",
    "statistics",
    "unit_rows",
    "moments",
    "sample",
    "gathered",
    "pairwise",
    "deflation",
    "closed_form",
    "measures",
    "functional.embeddings",
    "functional.wasserstein",
    "functional.spread",
    "functional.rank",
    "functional",
    "loss",
    "ranks",
    "shapes",
    "exchanges",
    "joint",
    "passes",
    "layers",
    "outputs",
    "compiled",
    "hook",
    "checkpointing",
    "given_up",
    "backward",
    "tap",
    "validating",
    "threads",
    "collector",
    "panel",
    "rules",
    "wording",
    "verdict",
    "alerts",
    "faults",
    "lines",
    "journal",
    "baseline",
    "recording",
    "worker",
    "writers",
    "outage",
    "feeds",
    "records",
    "load",
    "reader",
    "pool",
    "epochs",
    "company",
    "responder",
    "memory",
    "desk",
    "driver",
    "arguments",
    "monitor",
    "report.story",
    "report.series",
    "report.drawing",
    "report.figures",
    "report.timeline",
    "report.page",
    "report",
]
FOUNDATION = {"torch", "numpy", "scipy", "jaxtyping", "uniformity_callbacks"}


def imports(path):
    """Module names imported at the top level of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "uniformity_callbacks":
                yield from (f"uniformity_callbacks.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_importing_the_core_imports_no_framework():
    code = """
import sys
from uniformity_callbacks import *
frameworks = "lightning pytorch_lightning tensorboard mlflow torchmetrics sklearn matplotlib jinja2 rich click"
print(sorted({name.partition(".")[0] for name in sys.modules} & set(frameworks.split())))
"""
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert out.stderr == ""


def test_the_package_imports_nothing_until_it_is_asked_for():
    code = """
import sys, uniformity_callbacks
print({"torch", "numpy"} & set(sys.modules), uniformity_callbacks.CollapseAlert("constant").count)
print(set(uniformity_callbacks.__all__) - set(dir(uniformity_callbacks)), hasattr(uniformity_callbacks, "nothing"))
"""
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (out.stdout, out.stderr) == ("set() 3\nset() False\n", "")


def test_imports_go_one_way():
    seen = set()
    for name in ORDER:
        path = PACKAGE / name.replace(".", "/")
        for module in imports(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")):
            top, _, rest = module.partition(".")
            assert top in FOUNDATION | sys.stdlib_module_names, f"{name} imports {module}"
            if top == "uniformity_callbacks":
                assert rest in seen, f"{name} imports {module}, which stands after it"
        seen.add(name)
    files = {path.relative_to(PACKAGE).with_suffix("") for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("[fr]*/*.py")]}
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files}
    assert modules == seen | {"__init__", "__main__"}  # the last is a door to the command line, and imports it


def test_public_names():
    assert set(uniformity_callbacks.__all__) <= set(dir(uniformity_callbacks))
    for name in uniformity_callbacks.__all__:
        assert getattr(uniformity_callbacks, name).__doc__, name


def test_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_what_ships_beside_the_code():
    assert (PACKAGE / "integrations" / "uniformity" / "default.yaml").is_file()
    assert (PACKAGE / "report" / "page.html").is_file()
    for package in ("lightning.pytorch", "pytorch_lightning"):
        (entry,) = entry_points(group=f"{package}.callbacks_factory", name="uniformity-callbacks")
        assert entry.value == "uniformity_callbacks.integrations.factory:callbacks"
    (command,) = entry_points(group="console_scripts", name="uniformity")
    assert command.value == "uniformity_callbacks.integrations.command:main"
