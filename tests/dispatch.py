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


class Waits(TorchDispatchMode):
    """Records what waits for a device: operations that do, and copies to another device that are told to."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func.overloadpacket)
        result = func(*args, **kwargs)
        moves = name == "aten._to_copy" and args[0].device != result.device
        moves |= name == "aten.copy_" and args[0].device != args[1].device
        if name in SYNCHRONISING or (moves and not (kwargs.get("non_blocking") or True in args[2:])):
            self.names.append(name)
        return result
