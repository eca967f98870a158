"""The certificate: how far a model's output moves, at most, when its slices are reversed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from evenslice.evidence.sampling import Raw
from evenslice.model.logits import duplicate
from evenslice.model.predict import device_of, logits_of
from evenslice.model.spec import Model
from evenslice.model.stem.probe import evaluating, tensors_in
from evenslice.options import JsonObject
from evenslice.progress import Progress, silent
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import reverse

TOLERANCES: dict[str, float] = {"float32": 1e-5, "float64": 1e-12}
HALF_PRECISION = 1e-2
RANDOM_WINDOWS = 4
SIDE = 64


@dataclass(frozen=True)
class Certificate:
    """The largest response to the reversal that was found.

    That is the largest |f(x) - f(reverse x)| over the windows, relative to the largest |f(x)| of
    the window, in each precision. Float64 is the real test: rounding cannot hide there. None for an
    exported network that computes in float32 only. The tolerance is wider for a file that computes
    in half precision whatever it is given.
    """

    float32: float
    float64: float | None
    symmetric: bool  # whether all that was measured lies within its tolerance
    random_windows: int  # of noise
    real_windows: int  # of a volume
    side: int
    seed: int
    tolerance: dict[str, float] = field(default_factory=lambda: dict(TOLERANCES))

    def to_dict(self) -> JsonObject:
        """Return it as model files and JSON have it."""
        return asdict(self)


def certify(
    model: Model,
    windows: Sequence[Raw] = (),
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> Certificate:
    """Measure the largest response to the reversal, which is made on raw windows (S, y, x).

    They are those given and four of noise, drawn by ``seed`` with the mean and std that the model
    expects (0 and 1 without a normalisation). It runs on the CPU unless a device is given.
    """
    norm = model.normalisation or Normalisation((0.0,), (1.0,))
    sides = model.size or (max(SIDE, 2 * model.stride),) * 2
    rng = np.random.default_rng(seed)
    shape = (model.slices, *sides)
    noise = [rng.normal(norm.mean[0], norm.std[0], shape) for _ in range(RANDOM_WINDOWS)]
    measured = [*noise, *windows]
    found: dict[str, float] = {}
    precisions = list(getattr(model.network, "precisions", TOLERANCES))
    with progress("reversing windows", len(precisions) * len(measured)) as step:
        for name in precisions:
            precision = getattr(torch, name)
            network = duplicate(model.module).to(device or torch.device("cpu"), precision)
            run = partial(_outputs, network, model)
            found[name] = 0.0
            with evaluating(network), torch.inference_mode():
                for raw in measured:
                    found[name] = max(found[name], _response(run, norm, raw, precision))
                    step()
    half = getattr(model.network, "computes_in", None) in (torch.float16, torch.bfloat16)
    tolerances = TOLERANCES | ({"float32": HALF_PRECISION} if half else {})
    return Certificate(
        float32=found["float32"],
        float64=found.get("float64"),
        symmetric=all(value < tolerances[name] for name, value in found.items()),
        random_windows=RANDOM_WINDOWS,
        real_windows=len(windows),
        side=max(sides),
        seed=seed,
        tolerance=tolerances,
    )


def _outputs(network: torch.nn.Module, model: Model, x: Tensor) -> list[Tensor]:
    """Run on windows: the logits, or all that a network without a prediction returns."""
    x = x.to(device_of(network))
    if model.spec.classes:
        return [logits_of(network, x, model.stride)]
    return list(tensors_in(network(x)))


def _response(
    run: Callable[[Tensor], list[Tensor]], norm: Normalisation, raw: Raw, precision: torch.dtype
) -> float:
    # Arithmetic in float64 before the network, so that only the network's own precision is tested.
    mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (norm.mean, norm.std))
    pair = (np.stack([raw, reverse(raw)]).astype(np.float64) - mean) / std
    worst = 0.0
    for answers in run(torch.from_numpy(pair).to(precision)):
        if not bool(torch.isfinite(answers).all()):
            return float("inf")
        first, second = answers.chunk(2)
        largest = first.abs().max().clamp_min(torch.finfo(precision).tiny)
        worst = max(worst, float((first - second).abs().max() / largest))
    return worst
