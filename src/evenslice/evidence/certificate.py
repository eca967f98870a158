"""The certificate: how far a model's output moves, at most, when its slices are given in opposite order."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.model.predict import device_of, logits_of
from evenslice.model.spec import Model
from evenslice.model.stem.probe import evaluating, tensors_in
from evenslice.progress import Progress, silent
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import reverse

TOLERANCES: dict[str, float] = {"float32": 1e-5, "float64": 1e-12}
HALF = 1e-2
RANDOM_WINDOWS = 4
SIDE = 64
Windows = Sequence[NDArray[np.generic]]


@dataclass(frozen=True)
class Certificate:
    """The largest response to the reversal that was found.

    Attributes
    ----------
    float32, float64
        Largest |f(x) - f(reverse x)| over the windows, relative to the largest |f(x)| of the window, in each precision.
        Float64 is the real test: rounding cannot hide there. None for an exported network that computes in float32 only.
    symmetric
        Whether all that was measured lies within its tolerance.
    random_windows, real_windows, side, seed
        What was looked at: windows of noise, and windows of a volume.
    tolerance
        By precision; wider for a file that computes in half precision whatever it is given.
    """

    float32: float
    float64: float | None
    symmetric: bool
    random_windows: int
    real_windows: int
    side: int
    seed: int
    tolerance: dict[str, float] = field(default_factory=lambda: dict(TOLERANCES))

    def to_dict(self) -> dict[str, Any]:
        """Return it as model files and JSON have it."""
        return asdict(self)


def certify(
    model: Model,
    windows: Windows = (),
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> Certificate:
    """Measure the largest response to the reversal, which is made on raw windows, before normalisation.

    Parameters
    ----------
    model
        Any model; without a normalisation its windows of noise have mean 0 and std 1.
    windows
        Raw windows (S, y, x) of a volume, beside those of noise.
    seed
        Of the noise.
    device
        Where to run; the CPU when None.
    progress
        How to show the progress.
    """
    norm = model.normalisation or Normalisation((0.0,), (1.0,))
    drawn = [*noise_windows(model, norm, seed), *windows]
    tolerances = TOLERANCES | ({"float32": HALF} if _computes_in_half(model) else {})
    found: dict[str, float] = {}
    precisions = list(getattr(model.network, "precisions", TOLERANCES))
    with progress("reversing windows", len(precisions) * len(drawn)) as step:
        for name in precisions:
            network = copy.deepcopy(model.module).to(
                device or torch.device("cpu"), getattr(torch, name)
            )
            found[name] = 0.0
            with evaluating(network), torch.inference_mode():
                run = partial(_outputs, network, model)
                for raw in drawn:
                    found[name] = max(found[name], _response(run, norm, raw, getattr(torch, name)))
                    step()
    return Certificate(
        float32=found["float32"],
        float64=found.get("float64"),
        symmetric=all(value < tolerances[name] for name, value in found.items()),
        random_windows=RANDOM_WINDOWS,
        real_windows=len(windows),
        side=max(_sides(model)),
        seed=seed,
        tolerance=tolerances,
    )


def noise_windows(model: Model, norm: Normalisation, seed: int) -> Windows:
    """Draw raw windows (S, y, x) of noise with the mean and std that the normalisation expects."""
    rng = np.random.default_rng(seed)
    shape = (model.slices, *_sides(model))
    return [rng.normal(norm.mean[0], norm.std[0], shape) for _ in range(RANDOM_WINDOWS)]


def _computes_in_half(model: Model) -> bool:
    return getattr(model.network, "computes_in", torch.float32) in (torch.float16, torch.bfloat16)


def _sides(model: Model) -> tuple[int, int]:
    return model.size or (max(SIDE, 2 * model.stride),) * 2


def _outputs(network: torch.nn.Module, model: Model, x: Tensor) -> list[Tensor]:
    """Run on windows: the logits, or all that a network without a prediction returns."""
    x = x.to(device_of(network))
    return (
        [logits_of(network, x, model.stride)]
        if model.spec.classes
        else list(tensors_in(network(x)))
    )


def _response(
    run: Callable[[Tensor], list[Tensor]],
    norm: Normalisation,
    raw: NDArray[np.generic],
    precision: torch.dtype,
) -> float:
    # Arithmetic in float64 before the network, so that only the network's own precision is tested.
    mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (norm.mean, norm.std))
    pair = (np.stack([raw, reverse(raw)]).astype(np.float64) - mean) / std
    worst = 0.0
    for answers in run(torch.from_numpy(pair).to(precision)):
        first, second = answers.chunk(2)
        if not bool(torch.isfinite(answers).all()):
            return float("inf")
        worst = max(
            worst,
            float(
                (first - second).abs().max()
                / first.abs().max().clamp_min(torch.finfo(precision).tiny)
            ),
        )
    return worst
