"""How much memory a network takes for a window, found by running it on a small one and counting what is alive."""

import os
import resource
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evenslice.model.spec import Model

SIDE = 256
UNSEEN = 4096  # bytes a pixel where nothing can be counted
SLACK = 1.3  # for scratch space inside of operations


def bytes_per_pixel(model: Model) -> float:
    """Return the most memory that a float32 forward pass holds at once, bytes per pixel of the window, with some slack."""
    if model.size is not None:
        return UNSEEN
    device = next((p.device for p in model.module.parameters()), torch.device("cpu"))
    side = -(-SIDE // model.stride) * model.stride
    x = torch.zeros(1, model.slices, side, side, device=device)
    with torch.inference_mode(False), torch.no_grad(), _Alive() as alive:
        model.module(x)
    return alive.most / side**2 * SLACK if alive.most else UNSEEN


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._counts: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return out

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not self._counts.get(key):
            self.now += size
            self.most = max(self.most, self.now)
        self._counts[key] = self._counts.get(key, 0) + 1
        weakref.finalize(tensor, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            self.now -= size


def free_memory() -> int:
    """Return how many bytes this process may still use: what the machine has free, within the limits set for the process."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    free += [
        int(line.split()[1]) * 1024
        for line in _lines("/proc/meminfo")
        if line.startswith("MemAvailable")
    ]
    group = Path("/sys/fs/cgroup")
    limit, used = (
        "".join(_lines(group / name)).strip() for name in ("memory.max", "memory.current")
    )
    if limit.isdecimal() and used.isdecimal():
        free.append(int(limit) - int(used))
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        free.append(space - _pages(0))
    return max(0, min(free))


def resident() -> int:
    """Return how many bytes this process holds in memory now; 0 where the system does not say."""
    return _pages(1)


def _pages(field: int) -> int:
    words = "".join(_lines("/proc/self/statm")).split()
    return int(words[field]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
