"""How far a network looks: the halo beyond which nothing changes an answer, or that there is none.

Found by changing far pixels of noise with the real weights in place. Pooling to a fixed size, squeeze-and-excitation,
GroupNorm and attention let every pixel change every answer; interpolation with aligned corners depends on the size of the
picture. Both are seen, the second by comparing the answer for a part with that for the whole.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SIDES = (512, 1024)
FRAME = 64
ROUNDING = 4e-6  # of the largest logit: what float32 sums may differ by


def find_halo(
    run: Run, slices: int, stride: int, seed: int = 0, largest: int = SIDES[-1]
) -> int | None:
    """Return the pixels around a tile that make its answer that of the whole slice, or None if no such halo was found.

    Parameters
    ----------
    run
        Normalised windows (1, S, y, x) of any size to logits (1, C, y, x), in float32.
    slices, stride
        S, and what the network samples by; the halo is a multiple of it.
    seed
        Of the noise.
    largest
        Side of the largest picture to try, pixels.
    """
    rng = np.random.default_rng(seed)
    for side in SIDES:
        if side > largest:
            return None
        picture = rng.normal(size=(1, slices, side, side)).astype(np.float32)
        whole = run(picture)
        limit = ROUNDING * max(1.0, float(np.abs(whole).max()))
        halo = -(-_depth_of_change(run, picture, whole, limit, rng) // stride) * stride
        if halo + FRAME + stride < side // 2:
            return (
                halo if _part_equals_whole(run, picture, whole, halo, stride, 4 * limit) else None
            )
    return None


def _depth_of_change(
    run: Run,
    picture: NDArray[np.float32],
    whole: NDArray[np.float32],
    limit: float,
    rng: np.random.Generator,
) -> int:
    """Change a frame around the picture, and return how many pixels inward answers change by more than ``limit``."""
    side = picture.shape[-1]
    other = 3 * rng.normal(size=picture.shape).astype(np.float32)
    inner = (..., slice(FRAME, side - FRAME), slice(FRAME, side - FRAME))
    other[inner] = picture[inner]
    change = np.abs(run(other) - whole).max((0, 1))[FRAME : side - FRAME, FRAME : side - FRAME]
    index = np.arange(len(change))
    inward = np.minimum(index, index[::-1])
    depth = np.minimum(inward[:, None], inward[None])
    return int(depth[change > limit].max(initial=-1)) + 1


def _part_equals_whole(
    run: Run,
    picture: NDArray[np.float32],
    whole: NDArray[np.float32],
    halo: int,
    stride: int,
    limit: float,
) -> bool:
    """Whether parts that begin or end in the middle of the picture are answered like the whole, ``halo`` away from the cut."""
    cut = picture.shape[-1] // 4 // stride * stride
    end = picture.shape[-1] - cut
    late = run(picture[..., cut:, cut:])[..., halo:, halo:] - whole[..., cut + halo :, cut + halo :]
    early = (
        run(picture[..., :end, :end])[..., : end - halo, : end - halo]
        - whole[..., : end - halo, : end - halo]
    )
    return bool(max(np.abs(late).max(), np.abs(early).max()) <= limit)
