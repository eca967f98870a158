"""The stem: the one place that touches the weights through which slices enter.

A stem of an RGB-pretrained network has three slots W_R, W_G, W_B. Uniform inits make all S slots of the new stem
equal, so that no slice counts more than another before training (Molnar, Szabo, Horvath, arXiv 2505.14105).
Whatever is done is proved on noise before it is kept: the output must not see the order of the slices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evenslice.errors import BadInputError
from evenslice.model.exported import is_fixed
from evenslice.model.stem.find import Stem, check_kind, stems_on
from evenslice.model.stem.probe import Call, Probe, call_of, check_runs, order_response
from evenslice.model.stem.slots import (
    EVEN,
    INITS,
    norms_per_slot,
    slot_weights,
    update_input_channels,
    widened,
)
from evenslice.model.stem.tie import TIES, EvenWeight, bake_stem, tie_of
from evenslice.options import Init, Tie
from evenslice.volume.windows import check_slices

__all__ = [
    "EVEN",
    "INITS",
    "TIES",
    "Init",
    "Tie",
    "bake_stem",
    "mirror_stem",
    "norms_per_slot",
    "slot_weights",
    "uniform_stem",
]


def uniform_stem(
    module: nn.Module, slices: int = 3, init: Init = "green", probe: Probe | None = None
) -> nn.Module:
    """Give an RGB-pretrained network a stem for S slices, in place, and return the network.

    With a uniform init (``green``, ``red``, ``blue``, ``mean``, ``green-matched``) the network's output does not
    depend on the order of the slices, which is checked. Every other parameter stays as it is; what timm,
    segmentation-models-pytorch and transformers note down about the input follows, with one mean and std for all slots.

    Parameters
    ----------
    module
        Any network whose input is an RGB tensor (B, 3, y, x).
    slices
        S, odd, 1 to 9; afterwards the network takes (B, S, y, x).
    init
        ``green``/``red``/``blue``: w_s = (3/S) W_c, for S = 3 the method of arXiv 2505.14105. ``mean``:
        w_s = (W_R + W_G + W_B) / S, so S identical slices give the response of the grey photograph.
        ``green-matched``: w_s = (a/S) W_G with a the least-squares fit of W_R + W_G + W_B by W_G. ``rgb``: as
        pretrained for S = 3, the sum for S = 1, RGBRG... x 3/S beyond (control). ``random``: Kaiming.
    probe
        An example RGB input for networks that need one: a tensor (B, 3, y, x), or a tuple or a dict of inputs.

    Raises
    ------
    BadInputError
        If S or the init is unknown, or no stem is found that can be handled. The network is then unchanged.

    Notes
    -----
    A weight-standardised stem (``StdConv2d`` of BiT, ``ScaledStdConv2d`` of NFNets) divides its weights by their own
    spread, so every scale is lost: it comes out even, but with ``mean`` filter o answers S identical slices d_o / d'_o
    times as strongly as the grey photograph, with d and d' the spread of the filter's entries before and after.
    """
    check_slices(slices)
    if init not in INITS:
        raise BadInputError(
            f"the init {init!r} is unknown, expected one of {', '.join(INITS)}; choose one"
        )
    check_kind(module)
    _check_fixed(module, slices, "none", 3)
    call = call_of(module, 3, probe)
    stems = stems_on(module, call)
    for stem in stems:
        _check_weight(stem)
        if tie_of(stem.layer) != "none":
            raise BadInputError(
                f"the stem {stem.name!r} is tied ({tie_of(stem.layer)}), expected plain weights for an init; use bake_stem first, "
                "and mirror_stem(..., tie=...) again afterwards"
            )
        _check_complete(stem)
        if init != "rgb":
            _check_input(module, stem, [(0, 1), (0, 2)])
    plans = [widened(stem, slices, init) for stem in stems]
    uniform = init != "rgb" or slices != 3
    records = update_input_channels(module, [stem.name for stem in stems], slices, uniform)
    with _undone_on_error(stems), records:
        _replace_all(stems, [weight for weight, _ in plans])
        wide = call.widened(slices)
        check_runs(module, wide)
        found = stems_on(module, wide)
        if [(s.name, s.slot_of) for s in found] != [
            (s.name, o) for s, (_, o) in zip(stems, plans, strict=True)
        ]:
            raise BadInputError(
                f"the network feeds {slices} slices into {found[0].name!r} in another order than three; expected the same layout"
            )
        if init in EVEN:
            _prove(module, wide, stems, [[*range(1, slices), 0], list(range(slices))[::-1]])
    return module


def mirror_stem(
    module: nn.Module, slices: int = 3, tie: Tie = "none", probe: Probe | None = None
) -> nn.Module:
    """Make the stem of a network that already sees S slices mirror-symmetric, in place, and return the network.

    w_s <- (w_s + w_{S-1-s}) / 2. In eval mode and with scalar normalisation the output is then the same for a
    window and its reversal, up to rounding, which is checked.

    Parameters
    ----------
    module
        A network whose input is (B, S, y, x).
    slices
        S.
    tie
        ``none``: average once. ``mirror``: keep the stem symmetric while training goes on. ``uniform``: keep all
        slots equal, at their mean. A tie that is there already is replaced.
    probe
        An example input for networks that need one; see ``find_stems``.

    Raises
    ------
    BadInputError
        If no stem is found that can be handled. The network is then unchanged.
    """
    if tie not in TIES:
        raise BadInputError(
            f"the tie {tie!r} is unknown, expected one of {', '.join(TIES)}; choose one"
        )
    check_kind(module)
    _check_fixed(module, slices, tie, slices)
    call = call_of(module, slices, probe)
    stems = stems_on(module, call)
    pairs = (
        [(0, s) for s in range(slices)]
        if tie == "uniform"
        else [(s, slices - 1 - s) for s in range(slices)]
    )
    for stem in stems:
        _check_weight(stem)
        _check_input(module, stem, pairs)
    orders = [list(range(slices))[::-1]] + ([[*range(1, slices), 0]] if tie == "uniform" else [])
    ties = [tie_of(stem.layer) for stem in stems]
    for stem in stems:
        bake_stem(stem.layer)
    try:
        with _undone_on_error(stems):
            evens = [EvenWeight(stem, "mirror" if tie == "none" else tie) for stem in stems]
            with torch.no_grad():
                even_weights = [
                    even(stem.layer.weight) for stem, even in zip(stems, evens, strict=True)
                ]
            _replace_all(stems, even_weights)
            _prove(module, call, stems, orders)
    except BadInputError:
        _tie_all(stems, ties)
        raise
    _tie_all(stems, [tie] * len(stems))
    return module


def _check_fixed(module: nn.Module, slices: int, tie: Tie, now: int) -> None:
    """Refuse what an exported network cannot take: another number of slices than it has now, and ties."""
    if not is_fixed(module):
        return
    if tie != "none":
        raise BadInputError(
            f"the network is exported, and the tie {tie!r} is for training, expected tie = 'none'; use it on the module before the "
            "export"
        )
    if slices != now:
        raise BadInputError(
            f"the network is exported with {now} slices, expected to keep them (found {slices}); change the number of slices "
            "before the export"
        )


def _tie_all(stems: list[Stem], ties: Sequence[Tie]) -> None:
    for stem, tie in zip(stems, ties, strict=True):
        if tie != "none":
            parametrize.register_parametrization(stem.layer, "weight", EvenWeight(stem, tie))


def _check_weight(stem: Stem) -> None:
    """Refuse a stem whose weight is computed from other parameters by something that is not a tie of ours."""
    lists = dict(getattr(stem.layer, "parametrizations", nn.ModuleDict()).items())
    foreign = [type(part).__name__ for part in lists.get("weight", [])]
    if foreign and set(foreign) != {EvenWeight.__name__}:
        how = f"by {', '.join(foreign)}; use torch.nn.utils.parametrize.remove_parametrizations"
    elif not foreign and "weight" not in stem.layer._parameters:
        how = "from other parameters, as weight_norm and spectral_norm do; use torch.nn.utils.remove_weight_norm or remove_spectral_norm"
    else:
        return
    raise BadInputError(
        f"the weight of the stem {stem.name!r} is computed, expected a plain parameter; it is made {how} first"
    )


def _check_complete(stem: Stem) -> None:
    seen = sorted(set(stem.slot_of) - {-1})
    if len(seen) != stem.slots:
        raise BadInputError(
            f"the stem {stem.name!r} sees the channels {seen} of {stem.slots}, expected all of R, G and B; an init cannot make a "
            "network even that treats its channels differently; use mirror_stem, or a plain network"
        )


def _check_input(module: nn.Module, stem: Stem, pairs: list[tuple[int, int]]) -> None:
    """Refuse a network that itself treats two slots differently before the stem."""
    uneven = next(((s, other) for s, other in pairs if not stem.same_input(s, other)), None)
    if uneven is None:
        return
    counts = [len(stem.channels_of(slot)) for slot in uneven]
    if counts[0] != counts[1]:
        raise BadInputError(
            f"the stem {stem.name!r} sees slot {uneven[0]} in {counts[0]} channels and slot {uneven[1]} in {counts[1]}, expected as "
            "many of each; use a plain stem"
        )
    maps = [
        stem.maps[stem.channels_of(slot)[0]] for slot in range(stem.slots) if stem.channels_of(slot)
    ]
    scales, shifts = (
        ", ".join(f"{value:.4g}" for value in values) for values in zip(*maps, strict=True)
    )
    where = _constants_per_channel(module, stem.slots)
    raise BadInputError(
        f"the network normalises each channel by its own constants before the stem {stem.name!r} (scale {scales}; shift "
        f"{shifts}), expected the same for all slices, since an even stem behind them would not be even; "
        f"set them to one mean and one std{f' (see {where})' if where else ''}, or take them out of the network"
    )


def _constants_per_channel(module: nn.Module, slots: int) -> str:
    """Name the buffers and attributes that hold one number for each channel."""
    names = [
        n
        for n, b in module.named_buffers()
        if b.numel() == slots and bool((b != b.flatten()[0]).any())
    ]
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if (
                isinstance(value, list | tuple)
                and len(value) == slots
                and all(isinstance(v, float) for v in value)
            ):
                names.append(f"{name}.{key}".removeprefix("."))
    return ", ".join(names[:4])


def _replace_all(stems: list[Stem], weights: list[Tensor]) -> None:
    """Give stems new weights: in place where the shape stays, so that optimisers and shared weights keep them."""
    fresh: dict[int, Any] = {}
    for stem, weight in zip(stems, weights, strict=True):
        layer, old = stem.layer, stem.layer.weight
        if old.shape == weight.shape:
            with torch.no_grad():
                old.copy_(weight)
        else:
            layer.weight = fresh.setdefault(
                id(old), nn.Parameter(weight, requires_grad=old.requires_grad)
            )
        setattr(
            layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", weight.shape[1]
        )


@contextmanager
def _undone_on_error(stems: list[Stem]) -> Iterator[None]:
    """Put the weights of the stems back, as the same parameters, when something fails."""
    before = [(stem.layer.weight, stem.layer.weight.detach().clone()) for stem in stems]
    try:
        yield
    except BaseException:
        for stem, (parameter, _) in zip(stems, before, strict=True):
            stem.layer.weight = parameter
        _replace_all(stems, [values for _, values in before])
        raise


def _prove(module: nn.Module, call: Call, stems: list[Stem], orders: list[list[int]]) -> None:
    """Raise unless the output on noise is the same in other orders of the slots, to half the digits of the weights."""
    worst = max(order_response(module, call, order) for order in orders)
    limit = torch.finfo(getattr(module, "computes_in", stems[0].layer.weight.dtype)).eps ** 0.5
    if worst > limit:
        names = ", ".join(repr(stem.name) for stem in stems)
        raise BadInputError(
            f"the output still depends on the order of the slices (relative change {worst:.2g}) with {names} made even, expected "
            f"at most {limit:.1g}; the slices reach the output by another way; give the part of the network that starts with the stem"
        )
