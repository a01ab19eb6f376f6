"""What torch dispatches, to see that nothing waits for a device."""

from torch.utils._python_dispatch import TorchDispatchMode

SYNCHRONISING = {"aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten._linalg_eigh", "aten._linalg_svd"}


class Calls(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))
