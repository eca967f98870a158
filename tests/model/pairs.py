"""The pairs of architecture and encoder, and what is asked of each."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from evenslice import build_model, load_model, save_model
from evenslice.errors import BadInputError
from evenslice.model.encoders import ARCHS
from evenslice.model.predict import logits_of
from evenslice.model.spec import Model

CNNS = (
    "resnet18",
    "resnet50",
    "mobilenetv2_100",
    "efficientnet_b0",
    "regnety_002",
    "densenet121",
    "smp:resnet18",
)
STAGED = (
    "convnext_atto",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "pvt_v2_b0",
)
BLOCKED = ("maxvit_tiny_tf_224", "hiera_tiny_224")
MIX = ("smp:mit_b0",)
VITS = (
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
)
ENCODERS = (*CNNS, "smp:efficientnet-b0", *STAGED, *BLOCKED, *MIX, *VITS)
SEVERAL_SCALES = ("unet", "unetplusplus", "fpn", "segformer", "upernet")
UNSUPPORTED = {
    **{(arch, encoder): "use dpt with it" for arch in ARCHS if arch != "dpt" for encoder in VITS},
    **{
        ("dpt", encoder): "expected a vision transformer such as vit_tiny_patch16_224"
        for encoder in ENCODERS
        if encoder not in VITS and "swin" not in encoder and "hiera" not in encoder
    },
    **{
        ("deeplabv3plus", encoder): "use unet, fpn, segformer or upernet with it"
        for encoder in (*STAGED, *BLOCKED)
        if "convnext" not in encoder
    },
    ("unetplusplus", "smp:mit_b0"): "use unet, fpn, segformer or upernet with it",
}
PAIRS = [(arch, encoder) for arch in ARCHS for encoder in ENCODERS]
SIZES = {1: [(64, 64), (50, 70)], 3: [(96, 96), (256, 256)], 5: [(224, 224)], 9: [(320, 192)]}
UNASKED = (
    "model.head",
    "model.norm",
    "model.fc_norm",
    "mask_token",
)  # of a vision transformer, behind the features
INIT = {1: "rgb", 3: "green", 5: "rgb", 9: "green"}


@dataclass(frozen=True)
class Outcome:
    """Stride, only size if any, and largest relative response to the reversal of a pair."""

    stride: int
    size: tuple[int, int] | None
    reversal: float


def check_pair(arch: str, encoder: str, slices: tuple[int, ...] = (1, 3, 5, 9)) -> Outcome:
    """Build a pair for each S; run it on several sizes, train a step, save and load it.

    Raises
    ------
    BadInputError
        If it cannot be built.
    AssertionError
        If something else is wrong.
    """
    reversal = 0.0
    for count in slices:
        model = build_model(
            arch, encoder, slices=count, classes=2, weights="none", init=INIT[count]
        )
        model.module.eval()
        for size in SIZES[count]:
            if model.size is None or max(size) <= model.size[0]:
                found = _response(model, size)
                reversal = max(reversal, found if INIT[count] == "green" else 0.0)
        if count == slices[-1]:
            _check_file(model)
            _check_training(model)
    return Outcome(model.stride, model.size, reversal)


@torch.no_grad()
def _response(model: Model, size: tuple[int, int]) -> float:
    x = torch.randn(1, model.slices, *size, generator=torch.Generator().manual_seed(0))
    one, other = (
        logits_of(model.module, window, model.stride, model.size) for window in (x, x.flip(1))
    )
    assert one.shape == (1, 2, *size), one.shape
    assert torch.isfinite(one).all()
    return float((one - other).abs().max() / one.abs().max())


@torch.no_grad()
def _check_file(model: Model) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "m.safetensors", model)
        back = load_model(Path(folder) / "m.safetensors")
    assert (back.spec, back.stride, back.size) == (model.spec, model.stride, model.size)
    x = torch.randn(1, model.slices, 64, 96, generator=torch.Generator().manual_seed(1))
    one, other = (logits_of(m.module, x, m.stride, m.size) for m in (model, back))
    assert torch.equal(one, other)


def _check_training(model: Model) -> None:
    model.module.train()
    x = torch.randn(2, model.slices, 96, 96, generator=torch.Generator().manual_seed(2))
    logits_of(model.module, x, model.stride).square().mean().backward()
    stem = next(
        p for n, p in model.module.named_parameters() if n.startswith("encoder.") and p.ndim == 4
    )
    assert stem.shape[1] == model.slices and float(stem.grad.abs().sum()) > 0
    idle = [
        n
        for n, p in model.module.named_parameters()
        if p.grad is None and not any(word in n for word in UNASKED)
    ]
    assert not idle, idle


def refusal_of(arch: str, encoder: str) -> str:
    """Return what is said about a pair that cannot be built, ``""`` if it can."""
    try:
        build_model(arch, encoder, weights="none")
    except BadInputError as error:
        return str(error)
    return ""
