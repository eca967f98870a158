"""The families of evidence by name: which there are, which a model allows, and what each finds in some windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenslice.errors import BadInputError
from evenslice.evidence.gradients import input_x_gradient, integrated_gradients, smoothgrad
from evenslice.evidence.network import ModelOnVolume, Raw
from evenslice.evidence.perturbation import ablate_slots, centre_copies

Floats = NDArray[np.float64]
PERTURBATION = ("ablation", "ablation-copy", "shapley")
GRADIENT = ("gradient", "integrated-gradients")
ON_REQUEST = ("input-x-gradient", "smoothgrad")
METHODS = (*PERTURBATION, *GRADIENT, *ON_REQUEST)
MOST_FOR_SHAPLEY = 5


def default_methods(slices: int, differentiable: bool) -> tuple[str, ...]:
    """Return the families that are measured unless others are named: all that the model allows, Shapley up to S = 5."""
    left_out = (
        {"ablation-copy"} if slices == 1 else {"shapley"} if slices > MOST_FOR_SHAPLEY else set()
    )
    perturbation = tuple(method for method in PERTURBATION if method not in left_out)
    return perturbation + (GRADIENT if differentiable else ())


def check_methods(methods: Sequence[str], slices: int, differentiable: bool) -> tuple[str, ...]:
    """Return the methods asked for, each once, or raise ``BadInputError`` if one is unknown or cannot be had.

    ``reversal`` may be named: the response to the reversal is measured in every audit, under a key of its own.
    """
    named = tuple(dict.fromkeys(m for m in methods if m != "reversal"))
    unknown = sorted(set(named) - set(METHODS))
    if unknown or not methods:
        raise BadInputError(
            f"the method {', '.join(unknown) or '(none)'} is unknown, expected {', '.join(('reversal', *METHODS))}; choose among these"
        )
    needing = [m for m in named if m not in PERTURBATION]
    if needing and not differentiable:
        raise BadInputError(
            f"the method {', '.join(needing)} needs gradients, which an .onnx model has not, expected {', '.join(PERTURBATION)}; "
            "choose among these, or audit the network before its export"
        )
    if slices == 1 and "ablation-copy" in named:
        raise BadInputError(
            "the method ablation-copy puts the centre slice into the other slots, expected a model of 3 slices or more; leave it out"
        )
    return named


@dataclass(frozen=True)
class Evidence:
    """What the families found in some windows.

    Attributes
    ----------
    importance
        By method (N, S), N windows and arrangements one after the other.
    incompleteness
        By method (N,): how far attributions are from adding up, relative; only where they should.
    maps
        Attribution (N, S, y, x) to look at, per normalised intensity; None if no family makes one.
    """

    importance: dict[str, Floats]
    incompleteness: dict[str, Floats]
    maps: Tensor | None


def gather(
    scene: ModelOnVolume,
    methods: Sequence[str],
    arranged: Raw,
    x: Tensor,
    coefficients: Tensor,
    full: Tensor,
    orders: NDArray[np.intp],
    absolute_gradient: Tensor | None,
    seed: int,
) -> Evidence:
    """Let each family measure some windows.

    Parameters
    ----------
    scene
        The network.
    methods
        Which families.
    arranged, x
        Raw and normalised windows (N, S, y, x): all arrangements of one window after the other.
    coefficients, full
        (N, C, y, x) of the margin, and the margins, float64 (N, y, x).
    orders
        (arrangements, S).
    absolute_gradient
        (N, S, y, x), computed already, or None.
    seed
        Of noise.
    """
    importance: dict[str, Floats] = {}
    missed: dict[str, Floats] = {}
    maps = absolute_gradient
    if "gradient" in methods and absolute_gradient is not None:
        importance["gradient"] = scene.per_grey_level(absolute_gradient)
    _perturb(scene, methods, arranged, x, coefficients, full, importance, missed)
    if "integrated-gradients" in methods:
        found = integrated_gradients(scene, x, coefficients, len(orders), full)
        importance["integrated-gradients"] = _per_slot(found.attribution)
        missed["integrated-gradients"] = found.incompleteness
        maps = found.attribution.abs() if maps is None else maps
    if "input-x-gradient" in methods:
        importance["input-x-gradient"] = _per_slot(input_x_gradient(scene, x, coefficients))
    if "smoothgrad" in methods:
        importance["smoothgrad"] = scene.per_grey_level(
            smoothgrad(scene, x, coefficients, orders, seed)
        )
    return Evidence({name: importance[name] for name in methods}, missed, maps)


def _perturb(
    scene: ModelOnVolume,
    methods: Sequence[str],
    arranged: Raw,
    x: Tensor,
    coefficients: Tensor,
    full: Tensor,
    importance: dict[str, Floats],
    missed: dict[str, Floats],
) -> None:
    """Add what ablation, Shapley and copies find; ablation and Shapley share their runs of the network."""
    if "ablation" in methods or "shapley" in methods:
        taken = ablate_slots(scene, x, coefficients, full, exact="shapley" in methods)
        importance["ablation"] = taken.ablation
        if taken.shapley is not None and taken.incompleteness is not None:
            importance["shapley"], missed["shapley"] = taken.shapley, taken.incompleteness
    if "ablation-copy" in methods:
        importance["ablation-copy"] = centre_copies(scene, arranged, coefficients, full)


def _per_slot(found: Tensor) -> Floats:
    """Sum absolute attributions (N, S, y, x) over pixels. They hold intensity times gradient: no unit is left."""
    sums: Floats = found.abs().sum(dim=(2, 3), dtype=torch.float64).cpu().numpy()
    return sums
