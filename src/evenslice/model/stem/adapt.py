"""The stem: the one place that changes the weights through which slices enter.

A stem of an RGB-pretrained network has three slots W_R, W_G, W_B. Uniform inits make all S slots of
the new stem equal, so that no slice counts more than another before training (Molnar, Szabo,
Horvath, arXiv 2505.14105); mirrored inits make those before and after the centre equal. Whatever is
done is proved on noise before it is kept: the output must not depend on the order of the slices, or
on their direction.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evenslice.errors import BadInputError
from evenslice.model.stem.find import Stem, check_kind, stems_on
from evenslice.model.stem.probe import (
    Call,
    Probe,
    call_of,
    channels_of,
    check_runs,
    is_fixed,
    order_response,
)
from evenslice.model.stem.slots import (
    INITS,
    MIRRORED,
    UNIFORM,
    by_slot,
    laid_out,
    resized,
    slot_weights,
)
from evenslice.options import Init, JsonObject, Tie
from evenslice.volume.windows import check_slices

__all__ = [
    "INITS",
    "TIES",
    "bake_stem",
    "initialise_stem",
    "mirror_stem",
    "tie_of",
    "uniform_stem",
    "widen_stem",
]
TIES: tuple[Tie, ...] = get_args(Tie)
CHANNELS = ("in_channels", "_in_channels", "in_chans", "num_channels")


def uniform_stem(
    module: nn.Module, slices: int = 3, init: Init = "green", probe: Probe | None = None
) -> nn.Module:
    """Give a pretrained network a stem whose S slots are all equal, in place, and return it.

    The network's output then does not depend on the order of the slices, which is checked.

    Parameters
    ----------
    module, slices, probe
        See ``initialise_stem``.
    init
        ``green``, ``red``, ``blue``, ``mean`` or ``green-matched``, of ``initialise_stem``.

    Raises
    ------
    BadInputError
        As ``initialise_stem``, and for an init that is not uniform.

    Examples
    --------
    >>> network = uniform_stem(nn.Sequential(nn.Conv2d(3, 8, 3)), slices=5, init="green")
    >>> network[0].weight.shape
    torch.Size([8, 5, 3, 3])
    """
    if init in set(INITS) - set(UNIFORM):
        raise BadInputError(
            f"the init {init!r} is not uniform, expected one of {', '.join(UNIFORM)}; "
            "use initialise_stem"
        )
    return initialise_stem(module, slices, init, probe)


def initialise_stem(
    module: nn.Module, slices: int = 3, init: Init = "mirror", probe: Probe | None = None
) -> nn.Module:
    """Give a pretrained network a stem for S slices, in place, and return the network.

    Every other parameter stays as it is; what timm, segmentation-models-pytorch and transformers
    say of the input follows, with one mean and std for all slots.

    Parameters
    ----------
    module
        Any network whose input is an image (B, C, y, x): C = 3 where it was pretrained on RGB, 1 on
        grey images.
    slices
        S, odd, 1 to 9; afterwards the network takes (B, S, y, x).
    init
        ``green``/``red``/``blue``: w_s = (3/S) W_c, for S = 3 the method of arXiv 2505.14105.
        ``mean``: w_s = (W_R + W_G + W_B) / S, so S identical slices give the response of the grey
        photograph. ``green-matched``: w_s = (a/S) W_G with a the least-squares fit of
        W_R + W_G + W_B by W_G. ``mirror``: W_G for the centre, (W_R + W_B) / (S - 1) for every
        other slot: for S = 3 the symmetric stem nearest to the pretrained one. ``centre``:
        W_R + W_G + W_B for the centre, zero for the others. ``mirror``, ``centre`` and ``mean``
        keep the response to the grey photograph. ``rgb``: as pretrained for S = 3, the sum for
        S = 1, RGBRG... x 3/S beyond (control). ``random``: Kaiming.
        With C = 1, ``centre`` gives W to the centre, and all others but ``random`` W / S to every
        slot. With other C, ``mean`` is the sum of the channels / S, and only it and ``random`` can
        be had.
    probe
        An example input for networks that need one: a tensor (B, C, y, x), or a tuple or a dict
        of inputs.

    Raises
    ------
    BadInputError
        If S or the init is unknown, or no stem is found that can be handled. The network is then
        unchanged.

    Examples
    --------
    >>> network = initialise_stem(nn.Sequential(nn.Conv2d(3, 8, 3)), slices=5, init="mirror")
    >>> torch.equal(network[0].weight[:, 0], network[0].weight[:, 4])
    True
    """
    check_slices(slices)
    check_choice("init", init, INITS)
    check_kind(module)
    return widen_stem(module, channels_of(module, probe), slices, init, probe)


def widen_stem(
    module: nn.Module, channels: int, slices: int, init: Init, probe: Probe | None = None
) -> nn.Module:
    """Replace a stem of C channels as ``initialise_stem`` does, for any number of slots."""
    if channels not in (1, 3) and init not in ("mean", "random"):
        raise BadInputError(
            f"the stem was pretrained on {channels} channels, expected 3 (RGB) or 1 (grey) for the "
            f"init {init!r}; use mean or random"
        )
    _check_fixed(module, slices, "none", channels)
    call = call_of(module, channels, probe)
    stems = stems_on(module, call)
    for stem in stems:
        _check_weight(stem)
        if tie_of(stem.layer) != "none":
            raise BadInputError(
                f"the stem {stem.name!r} is tied ({tie_of(stem.layer)}), expected plain weights for"
                " an init; use bake_stem first, and mirror_stem(..., tie=...) again afterwards"
            )
        _check_slots(stem)
        if init != "rgb":
            _check_input(module, stem, [(0, other) for other in range(1, channels)])
    before = [stem.layer.weight.detach() for stem in stems]
    fresh = [slot_weights(by_slot(stem), slices, init) for stem in stems]
    scalar = init != "rgb" or slices != channels
    with (
        _undone_on_error(stems),
        _input_channels(module, [stem.name for stem in stems], channels, slices, scalar),
    ):
        wide = call.widened(slices)
        found = stems
        if slices != channels:  # where each slot comes in then is found by running it
            _replace_all(stems, [resized(stem, slices) for stem in stems])
            check_runs(module, wide)
            found = stems_on(module, wide)
            _check_layout(stems, found)
        parts = zip(stems, found, before, fresh, strict=True)
        _replace_all(stems, [laid_out(*each) for each in parts])
        if init in UNIFORM or (channels == 1 and init not in (*MIRRORED, "random")):
            _prove(module, wide, stems, [[*range(1, slices), 0], list(range(slices))[::-1]])
        elif init in MIRRORED:
            _prove(module, wide, stems, [list(range(slices))[::-1]])
    return module


def _check_layout(before: list[Stem], after: list[Stem]) -> None:
    """Refuse a network that feeds another number of slices into its stems in another way."""
    places = [[(s.name, len(s.channels_of(n))) for n in range(s.slots)] for s in after]
    expected = [[(s.name, len(s.channels_of(0)))] * after[0].slots for s in before]
    if places != expected:
        raise BadInputError(
            f"the network feeds {after[0].slots} slices into {after[0].name!r} in another way than "
            f"{before[0].slots} channels into {before[0].name!r}; expected the same layout"
        )


def mirror_stem(
    module: nn.Module, slices: int = 3, tie: Tie = "none", probe: Probe | None = None
) -> nn.Module:
    """Make the stem of a network that sees S slices mirror-symmetric, in place, and return it.

    w_s <- (w_s + w_{S-1-s}) / 2. In eval mode and with scalar normalisation the output is then the
    same for a window and its reversal, up to rounding, which is checked.

    Parameters
    ----------
    module
        A network whose input is (B, S, y, x).
    slices
        S.
    tie
        ``none``: average once. ``mirror``: keep the stem symmetric during and after training.
        ``uniform``: keep all slots equal, at their mean. A tie that is there already is replaced.
    probe
        An example input for networks that need one; see ``find_stems``.

    Raises
    ------
    BadInputError
        If no stem is found that can be handled. The network is then unchanged.

    Examples
    --------
    >>> network = mirror_stem(nn.Sequential(nn.Conv2d(3, 8, 3)), 3)
    >>> torch.equal(network[0].weight[:, 0], network[0].weight[:, 2])
    True
    """
    check_choice("tie", tie, TIES)
    check_kind(module)
    _check_fixed(module, slices, tie, slices)
    call = call_of(module, slices, probe)
    stems = stems_on(module, call)
    pairs = [(0 if tie == "uniform" else s, slices - 1 - s) for s in range(slices)]
    for stem in stems:
        _check_weight(stem)
        _check_input(module, stem, pairs)
    orders = [list(range(slices))[::-1]]
    if tie == "uniform":
        orders.append([*range(1, slices), 0])
    with _undone_on_error(stems):
        average: Tie = "mirror" if tie == "none" else tie
        with torch.no_grad():
            weights = [SymmetricWeight(s, average)(s.layer.weight) for s in stems]
        _replace_all(stems, weights)
        _prove(module, call, stems, orders)
    _tie_all(stems, [tie] * len(stems))
    return module


class SymmetricWeight(nn.Module):
    """Parametrisation that keeps slots alike.

    ``mirror``: slot s and slot S-1-s are their mean; ``uniform``: every slot is the mean of all.
    """

    partner: Tensor
    by_slot: Tensor

    def __init__(self, stem: Stem, tie: Tie) -> None:
        super().__init__()
        channels = [stem.channels_of(s) for s in range(stem.slots)]
        partner = list(range(len(stem.slot_of)))
        for mine, others in zip(channels, channels[::-1], strict=True):
            for channel, other in zip(mine, others, strict=True):
                partner[channel] = other
        self.tie = tie
        device = next(stem.layer.parameters()).device
        seen = torch.tensor([each for each in channels if each], device=device)
        self.register_buffer("partner", torch.tensor(partner, device=device), persistent=False)
        self.register_buffer("by_slot", seen, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the symmetric weights."""
        if self.tie == "mirror":
            return (weight + weight[:, self.partner]) / 2
        uniform = weight.clone()
        mean = weight[:, self.by_slot].mean(dim=1, keepdim=True)
        uniform[:, self.by_slot] = mean.expand(-1, self.by_slot.shape[0], *mean.shape[2:])
        return uniform

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Start from the weights as they are."""
        return weight


def tie_of(layer: nn.Module) -> Tie:
    """Return the tie on a layer's weight."""
    parts = _parametrisations(layer)
    return next((part.tie for part in parts if isinstance(part, SymmetricWeight)), "none")


def _parametrisations(layer: nn.Module) -> list[nn.Module]:
    lists = getattr(layer, "parametrizations", {})
    return list(lists["weight"]) if "weight" in lists else []


def bake_stem(module: nn.Module) -> nn.Module:
    """Replace ties by the plain weights they stand for, in place, and return the network."""
    for layer in module.modules():
        if tie_of(layer) != "none":
            # torch takes the weight out of the layer's class, which deep copies share with it
            shared = type(layer)
            own = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
            layer.__class__ = type(shared.__name__, shared.__bases__, own)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _tie_all(stems: list[Stem], ties: Sequence[Tie]) -> None:
    for stem, tie in zip(stems, ties, strict=True):
        if tie != "none":
            parametrize.register_parametrization(stem.layer, "weight", SymmetricWeight(stem, tie))


def check_choice(kind: str, name: str, known: Sequence[str]) -> None:
    """Raise ``BadInputError`` unless a name is a known one."""
    if name not in known:
        raise BadInputError(
            f"the {kind} {name!r} is unknown, expected one of {', '.join(known)}; choose one"
        )


def _check_fixed(module: nn.Module, slices: int, tie: Tie, now: int) -> None:
    """Refuse what an exported network cannot take: another number of slices, and ties."""
    if is_fixed(module) and tie != "none":
        raise BadInputError(
            f"the network is exported, and the tie {tie!r} is for training, expected tie = 'none'; "
            "use it on the module before the export"
        )
    if is_fixed(module) and slices != now:
        raise BadInputError(
            f"the network is exported with {now} slices, expected to keep them (found {slices}); "
            "change the number of slices before the export"
        )


def _check_weight(stem: Stem) -> None:
    """Refuse a stem whose weight is computed from other parameters by anything but our ties."""
    kinds = [type(part).__name__ for part in _parametrisations(stem.layer)]
    if kinds and set(kinds) != {SymmetricWeight.__name__}:
        how = f"by {', '.join(kinds)}; use torch.nn.utils.parametrize.remove_parametrizations"
    elif not kinds and "weight" not in stem.layer._parameters:
        how = "by a hook; use torch.nn.utils.remove_weight_norm or remove_spectral_norm"
    else:
        return
    raise BadInputError(
        f"the weight of the stem {stem.name!r} is computed, expected a plain parameter; it is made "
        f"{how} first"
    )


def _check_slots(stem: Stem) -> None:
    """Refuse a stem that lacks a channel, or sees some oftener than others."""
    counts = [len(stem.channels_of(slot)) for slot in range(stem.slots)]
    if 0 in counts:
        seen = [slot for slot, count in enumerate(counts) if count]
        raise BadInputError(
            f"the stem {stem.name!r} sees the channels {seen} of {stem.slots}, expected all, which "
            "an init replaces; use mirror_stem, or a plain network"
        )
    for slot in range(1, stem.slots):
        _check_counts(stem, 0, slot)


def _check_counts(stem: Stem, one: int, other: int) -> None:
    counts = [len(stem.channels_of(slot)) for slot in (one, other)]
    if counts[0] != counts[1]:
        raise BadInputError(
            f"the stem {stem.name!r} sees slot {one} in {counts[0]} channels and slot {other} in "
            f"{counts[1]}, expected as many of each; use a plain stem"
        )


def _check_input(module: nn.Module, stem: Stem, pairs: list[tuple[int, int]]) -> None:
    """Refuse a network that itself treats two slots differently before the stem."""
    unlike = next((pair for pair in pairs if not stem.same_input(*pair)), None)
    if unlike is None:
        return
    _check_counts(stem, *unlike)
    maps = [stem.maps[stem.channels_of(s)[0]] for s in range(stem.slots) if stem.channels_of(s)]
    scales, shifts = (", ".join(f"{v:.4g}" for v in part) for part in zip(*maps, strict=True))
    buffers = [
        name
        for name, values in module.named_buffers()
        if values.numel() == stem.slots and bool((values != values.flatten()[0]).any())
    ]
    where = f" (see {', '.join(buffers[:4])})" if buffers else ""
    raise BadInputError(
        f"the network normalises each channel by its own constants before the stem {stem.name!r} "
        f"(scale {scales}; shift {shifts}), expected the same for all slices, or a symmetric stem "
        f"would not make the network symmetric; set them to one mean and one std{where}, or take "
        "them out of the network"
    )


def _replace_all(stems: list[Stem], weights: list[Tensor]) -> None:
    """Give stems new weights.

    In place where the shape stays, so that optimisers and shared weights keep them.
    """
    fresh: dict[int, Any] = {}
    for stem, weight in zip(stems, weights, strict=True):
        layer, old = stem.layer, stem.layer.weight
        if old.shape == weight.shape:
            with torch.no_grad():
                old.copy_(weight)
        else:
            new = nn.Parameter(weight, requires_grad=old.requires_grad)
            layer.weight = fresh.setdefault(id(old), new)
        count = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
        setattr(layer, count, weight.shape[1])


@contextmanager
def _undone_on_error(stems: list[Stem]) -> Iterator[None]:
    """Bake ties; put them and the weights back, as the same parameters, when something fails."""
    ties = [tie_of(stem.layer) for stem in stems]
    for stem in stems:
        bake_stem(stem.layer)
    before = [(stem.layer.weight, stem.layer.weight.detach().clone()) for stem in stems]
    try:
        yield
    except BaseException:
        for stem, (parameter, _) in zip(stems, before, strict=True):
            stem.layer.weight = parameter
        _replace_all(stems, [values for _, values in before])
        _tie_all(stems, ties)
        raise


def _prove(module: nn.Module, call: Call, stems: list[Stem], orders: list[list[int]]) -> None:
    """Raise unless noise in other orders of the slots gives the same output.

    To half the digits of the weights.
    """
    worst = max(order_response(module, call, order) for order in orders)
    limit = torch.finfo(getattr(module, "computes_in", stems[0].layer.weight.dtype)).eps ** 0.5
    if worst > limit:
        names = ", ".join(repr(stem.name) for stem in stems)
        raise BadInputError(
            f"the output still depends on the order of the slices (relative change {worst:.2g}) "
            f"with {names} made symmetric, expected at most {limit:.1g}; the slices reach the "
            "output by another way; give the part of the network that starts with the stem"
        )


@contextmanager
def _input_channels(
    module: nn.Module, stems: Iterable[str], channels: int, slices: int, scalar: bool
) -> Iterator[None]:
    """Correct what the libraries say of the input, so that a network still rebuilds and exports.

    The modules around the stems say S in place of C channels and, if ``scalar``, one mean and std
    in place of one for each channel. Taken back when something fails.
    """
    around = {".".join(name.split(".")[:n]) for name in stems for n in range(name.count(".") + 1)}
    parts = dict(module.named_modules(remove_duplicate=False))
    owners = [parts[name] for name in sorted(around) if name in parts]
    changes = [
        (owner, *change)
        for owner in owners
        for change in _statements(owner, channels, slices, scalar)
    ]
    changes += _configs(module, owners, channels, slices)
    before = [(owner, key, owner.__dict__[key]) for owner, key, _ in changes]
    try:
        for owner, key, value in changes:
            owner.__dict__[key] = value
        yield
    except BaseException:
        for owner, key, value in before:
            owner.__dict__[key] = value
        raise


def _statements(
    owner: nn.Module, channels: int, slices: int, scalar: bool
) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module that state its channels, with their new values."""
    for key in CHANNELS:
        if owner.__dict__.get(key) == channels:
            yield key, slices
    maps = owner.__dict__.get("_out_channels")
    if isinstance(maps, list | tuple) and tuple(maps[:1]) == (channels,):
        yield "_out_channels", type(maps)([slices, *maps[1:]])
    hub = owner.__dict__.get("_hub_mixin_config")
    if isinstance(hub, dict) and hub.get("in_channels") == channels:
        yield "_hub_mixin_config", hub | {"in_channels": slices}
    fresh: dict[int, JsonObject] = {}  # timm's; networks of one name may share the original
    for key in ("pretrained_cfg", "default_cfg"):
        old = owner.__dict__.get(key)
        if not isinstance(old, dict):
            continue
        new = fresh.setdefault(id(old), dict(old))
        for size in ("input_size", "test_input_size", "min_input_size"):
            if isinstance(new.get(size), tuple) and new[size][:1] == (channels,):
                new[size] = (slices, *new[size][1:])
        for name in ("mean", "std"):
            if scalar and isinstance(old.get(name), tuple) and old[name]:
                new[name] = (sum(old[name]) / len(old[name]),) * slices
        yield key, new


def _configs(
    module: nn.Module, owners: Iterable[nn.Module], channels: int, slices: int
) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield a changed copy of the configuration of transformers, wherever the network holds it."""
    fresh: dict[int, Any] = {}
    for owner in owners:
        old = owner.__dict__.get("config")
        if getattr(old, "num_channels", None) == channels and id(old) not in fresh:
            fresh[id(old)] = copy.deepcopy(old)
            fresh[id(old)].num_channels = slices
    for part in module.modules():
        if id(part.__dict__.get("config")) in fresh:
            yield part, "config", fresh[id(part.__dict__["config"])]
