"""Makes torchvision's CUDA wheel importable beside a CPU build of torch, in this process and its children.

The Makefile puts a ``.pth`` into .venv-solo that imports this module as every interpreter starts, so it may import
nothing: a finder waits for torchvision, which is all that it does.
"""

import sys

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared = []  # a Library takes back what it declared when it goes


class _Finder:
    """Declares torchvision's operators before it is first imported, and finds nothing."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_unless_it_does()

    def find_distributions(self, context=None):  # importlib.metadata asks each finder that stands in sys.meta_path
        return iter(())


def _declare_unless_it_does():
    from importlib.machinery import PathFinder
    from pathlib import Path

    import torch

    spec = PathFinder.find_spec("torchvision")
    if spec is None:
        return
    try:  # torchvision itself passes over a library that does not load, and then misses the schemas
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + SCHEMA)
        _declared.append(library)


sys.meta_path.insert(0, _Finder())
