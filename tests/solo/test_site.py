"""torchvision imports beside a CPU build of torch, in every process, at no cost to those that do not want it."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'import torchvision.ops']).returncode)"
TWICE = """
import sys, torch, torchvision
for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
    del sys.modules[name]
import torchvision
torchvision.models.resnet18()
"""
ALONE = f"""
import sys
sys.path.append({str(Path(__file__).parent / "site")!r})
before = set(sys.modules)
import torchvision_schemas
print(set(sys.modules) - before)
"""


def run(code, *options):
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("code", [CHILD, TWICE], ids=["in a child's child", "imported anew"])
def test_torchvision_imports(code):
    run(code)


def test_nothing_is_imported_as_an_interpreter_starts():
    started = run("import sys; print(*sys.modules)").split()
    assert "torchvision_schemas" in started
    assert "torch" not in started
    assert run(ALONE, "-S") == "{'torchvision_schemas'}\n"
