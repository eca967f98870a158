"""What limits a tile: the receptive field, which sets its halo, and the memory it takes.

The receptive field is found by changing far pixels of noise, with the real weights in place.
Pooling to a fixed size, squeeze-and-excitation, GroupNorm and attention let every pixel change
every answer; interpolation with aligned corners depends on the size of the image. Both are seen,
the second by comparing the answer for a part with that for the whole. The memory is that of the
tensors alive at once in a forward pass on a small window.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evenslice.model.predict import device_of
from evenslice.model.spec import Model

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SIDES = (512, 1024)  # of the images that the halo is searched in
FRAME = 64  # pixels changed around them
ROUNDING = 4e-6  # of the largest logit: what float32 sums may differ by
SIDE = 256  # of the window that memory is counted on
UNSEEN = 4096  # bytes per pixel where nothing can be counted
SLACK = 1.3  # for scratch space inside of operations
FALLBACK_MEMORY = 4 * 2**30  # bytes, where the system does not say


def find_halo(
    run: Run, slices: int, stride: int, seed: int = 0, largest: int = SIDES[-1]
) -> int | None:
    """Return the pixels around a tile that make its answer that of the whole slice, or None.

    ``run`` takes normalised windows (1, S, y, x) of any size to logits (1, C, y, x), in float32.
    The halo is a multiple of ``stride``, by which the network downsamples; ``largest`` is the side
    of the largest image to try, in pixels.
    """
    rng = np.random.default_rng(seed)
    for side in SIDES:
        if side > largest:
            return None
        image = rng.normal(size=(1, slices, side, side)).astype(np.float32)
        whole = run(image)
        limit = ROUNDING * max(1.0, float(np.abs(whole).max()))
        halo = -(-_depth_of_change(run, image, whole, limit, rng) // stride) * stride
        if halo + FRAME + stride < side // 2:
            exact = _part_equals_whole(run, image, whole, halo, stride, 4 * limit)
            return halo if exact else None
    return None


def _depth_of_change(
    run: Run,
    image: NDArray[np.float32],
    whole: NDArray[np.float32],
    limit: float,
    rng: np.random.Generator,
) -> int:
    """Change a frame around the image; return how far inward that changes the answers."""
    side = image.shape[-1]
    other = 3 * rng.normal(size=image.shape).astype(np.float32)
    inner = (..., slice(FRAME, side - FRAME), slice(FRAME, side - FRAME))
    other[inner] = image[inner]
    change = np.abs(run(other) - whole)[inner].max((0, 1))
    index = np.arange(len(change))
    inward = np.minimum(index, index[::-1])
    depth = np.minimum(inward[:, None], inward[None])
    return int(depth[change > limit].max(initial=-1)) + 1


def _part_equals_whole(
    run: Run,
    image: NDArray[np.float32],
    whole: NDArray[np.float32],
    halo: int,
    stride: int,
    limit: float,
) -> bool:
    """Whether parts of the image give its answers, except ``halo`` pixels at the cut."""
    cut = image.shape[-1] // 4 // stride * stride
    late, early = slice(cut, None), slice(None, image.shape[-1] - cut)
    after, before = slice(halo, None), slice(None, image.shape[-1] - cut - halo)
    differences = [
        run(image[..., part, part])[..., kept, kept] - whole[..., part, part][..., kept, kept]
        for part, kept in ((late, after), (early, before))
    ]
    return all(np.abs(difference).max() <= limit for difference in differences)


def bytes_per_pixel(model: Model) -> float:
    """Return the most memory that a float32 forward pass takes at once, bytes per window pixel."""
    if model.size is not None:
        return UNSEEN
    side = -(-SIDE // model.stride) * model.stride
    x = torch.zeros(1, model.slices, side, side, device=device_of(model.module))
    with torch.inference_mode(False), torch.no_grad(), _LiveBytes() as live:
        model.module(x)
    return live.most / side**2 * SLACK if live.most else UNSEEN


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._tensors_at: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Iterable[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not self._tensors_at.get(address):
            self.now += size
            self.most = max(self.most, self.now)
        self._tensors_at[address] = self._tensors_at.get(address, 0) + 1
        weakref.finalize(tensor, self._discount, address, size)

    def _discount(self, address: int, size: int) -> None:
        self._tensors_at[address] -= 1
        if not self._tensors_at[address]:
            self.now -= size


def free_memory() -> int:
    """Return how many bytes this process may still use, within the limits of its group and itself.

    On Linux from /proc and /sys; elsewhere all memory is taken to be free, or 4 GiB where the
    system does not say how much there is.
    """
    free = [_total_memory()]
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable"):
            free.append(int(line.split()[1]) * 1024)
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        free.append(int(limit) - int(used))
    for line in _read("/proc/self/limits").splitlines():
        if line.startswith("Max address space") and (space := line.split()[3]).isdecimal():
            free.append(int(space) - _pages(0))
    return max(0, min(free))


def _total_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return FALLBACK_MEMORY


def resident() -> int:
    """Return how many bytes of memory this process has now; 0 where the system does not say."""
    return _pages(1)


def _pages(field: int) -> int:
    sizes = _read("/proc/self/statm").split()
    return int(sizes[field]) * os.sysconf("SC_PAGE_SIZE") if sizes else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
