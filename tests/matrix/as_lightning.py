"""A plugin of pytest: where pytorch-lightning is installed alone, tests of Lightning find it by the other name."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types

import pytorch_lightning


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives ``lightning.pytorch.x`` as the very module ``pytorch_lightning.x``, ``lightning.fabric`` likewise."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if _other(name) else None

    def create_module(self, spec):
        return importlib.import_module(_other(spec.name))

    def exec_module(self, module):
        pass


def _other(name):
    for ours, theirs in (("lightning.pytorch", "pytorch_lightning"), ("lightning.fabric", "lightning_fabric")):
        if name == ours or name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    return None


sys.meta_path.insert(0, _Finder())
sys.modules["lightning"] = types.ModuleType("lightning")
sys.modules["lightning"].__path__ = []
sys.modules["lightning"].pytorch = sys.modules["lightning.pytorch"] = pytorch_lightning
