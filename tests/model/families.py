"""The networks that the stem is proved on, and what is measured of each.

`benchmarks/stems.py` prints the table. Nothing is downloaded: weights are drawn and moved.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evenslice import initialise_stem, mirror_stem
from evenslice.model.stem.probe import tensors_in


@dataclass(frozen=True)
class Family:
    """A network by name: the library, how to build it, and the side of its input.

    ``fit`` is off where statistics fitted to noise make it ill-conditioned in single precision.
    """

    library: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    side: int = 64
    standardised: bool = False
    fit: bool = True

    @property
    def label(self) -> str:
        return f"{self.library} {self.name}" + "".join(
            f" {v}" for k, v in self.options.items() if k == "encoder_name"
        )

    def build(self) -> nn.Module:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return BUILDERS[self.library](self).eval()


def _timm(family: Family) -> nn.Module:
    import timm

    return timm.create_model(family.name, pretrained=False, **({"num_classes": 4} | family.options))


def _smp(family: Family) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, family.name)(encoder_weights=None, **family.options)


def _torchvision(family: Family) -> nn.Module:
    from torchvision.models import segmentation

    options = {"weights": None, "weights_backbone": None, "num_classes": 2}
    return getattr(segmentation, family.name)(**(options | family.options))


def _transformers(family: Family) -> nn.Module:
    import transformers

    kind = family.name.removesuffix("ForSemanticSegmentation").removesuffix("Model")
    config = getattr(transformers, f"{kind}Config")(**family.options)
    return getattr(transformers, family.name)(config)


BUILDERS: dict[str, Callable[[Family], nn.Module]] = {
    "timm": _timm,
    "smp": _smp,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
SEGFORMER = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
}
SEGFORMER |= {"decoder_hidden_size": 16, "num_labels": 2}
SMALL_VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}

PLAIN = """
resnet18 resnet50 resnext50_32x4d resnet50d densenet121 efficientnet_b0
tf_efficientnet_b0 mobilenetv2_100 mobilenetv3_large_100 convnext_tiny regnety_008 hrnet_w18_small
repvgg_a0 mobileone_s0 tresnet_m xception41 pvt_v2_b0 mobilevit_s
"""

FAMILIES = [
    *(Family("timm", name) for name in PLAIN.split()),
    Family("timm", "vgg16", {"num_classes": 0}),
    Family("timm", "resnetv2_50", fit=False),
    Family("timm", "resnetv2_50x1_bit", side=128, standardised=True),
    Family("timm", "dm_nfnet_f0", standardised=True),
    Family("timm", "vit_tiny_patch16_224", side=224),
    Family("timm", "vit_small_patch14_dinov2", {"img_size": 70, "depth": 4}, side=70),
    Family("timm", "beit_base_patch16_224", {"depth": 3}, side=224),
    Family(
        "timm",
        "swin_tiny_patch4_window7_224",
        {"img_size": 112, "window_size": 7, "depths": (2, 2, 2, 1)},
        side=112,
    ),
    Family("timm", "maxvit_tiny_tf_224", {"img_size": 64}),
    Family("timm", "coatnet_0_rw_224", {"img_size": 64}),
    Family("timm", "mixer_s32_224", side=224),
    Family("timm", "crossvit_tiny_240", side=240),
    Family("timm", "xcit_nano_12_p16_224", side=64),
    Family("timm", "hiera_tiny_224", side=224),
    Family("timm", "levit_128s", side=224),
    Family("smp", "Unet", {"encoder_name": "resnet18"}),
    Family("smp", "Unet", {"encoder_name": "tu-resnet18"}),
    Family(
        "smp",
        "Unet",
        {
            "encoder_name": "tu-convnext_atto",
            "encoder_depth": 4,
            "decoder_channels": (64, 32, 16, 8),
        },
    ),
    Family("smp", "UnetPlusPlus", {"encoder_name": "mobilenet_v2"}),
    Family("smp", "FPN", {"encoder_name": "tu-mobilenetv2_100"}),
    Family("smp", "DeepLabV3Plus", {"encoder_name": "resnet18"}),
    Family("smp", "Segformer", {"encoder_name": "mit_b0"}),
    Family("smp", "UPerNet", {"encoder_name": "tu-mobilenetv3_small_100"}),
    Family("smp", "DPT", {"encoder_name": "tu-vit_tiny_patch16_224", "dynamic_img_size": True}),
    Family("torchvision", "deeplabv3_mobilenet_v3_large"),
    Family("torchvision", "fcn_resnet50", fit=False),
    Family("torchvision", "lraspp_mobilenet_v3_large"),
    Family("transformers", "SegformerForSemanticSegmentation", SEGFORMER),
    Family("transformers", "ViTModel", SMALL_VIT | {"image_size": 48}, side=48),
    Family("transformers", "Dinov2Model", SMALL_VIT | {"image_size": 56}, side=56),
]


def move(module: nn.Module, side: int, seed: int = 0, fit: bool = True) -> nn.Module:
    """Move every parameter and fit the running statistics to noise."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            size = float(parameter.std()) if parameter.numel() > 1 else 0.0
            parameter.add_((0.2 * size + 0.01) * torch.randn(parameter.shape, generator=draw))
        norms = [
            m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and fit
        ]
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        module(noise(3, side, torch.float32, seed=9, batch=4))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
            norm.running_var.clamp_(min=float(norm.running_var.mean()))
            norm.running_mean.add_(
                0.1 * norm.running_var.sqrt() * torch.randn(norm.running_mean.shape, generator=draw)
            )
    return module


def answer(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return all floating-point tensors of the output for an image, in the image's type."""
    with torch.no_grad():
        return list(tensors_in(module(x)))


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest value, over all outputs."""
    assert len(found) == len(expected) > 0
    parts = [
        ((f - e).abs().max() / e.abs().max()).item() for f, e in zip(found, expected, strict=True)
    ]
    assert all(part == part for part in parts), "the output is not a number"
    return max(parts)


def noise(slices: int, side: int, dtype: torch.dtype, seed: int = 0, batch: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, slices, side, side, generator=draw, dtype=torch.float64).to(dtype)


def orders(slices: int) -> list[list[int]]:
    """Return a turn and a swap, which make every permutation, the reversal, and a random one."""
    line = list(range(slices))
    randomised = torch.randperm(slices, generator=torch.Generator().manual_seed(5)).tolist()
    return [[*line[1:], 0], [1, 0, *line[2:]], line[::-1], randomised]


def order_change(
    module: nn.Module, slices: int, side: int, dtype: torch.dtype, reversal_only: bool = False
) -> float:
    """Return the largest relative change under permutations of the slots (or the reversal)."""
    x = noise(slices, side, dtype)
    expected = answer(module, x)
    tried = [list(range(slices))[::-1]] if reversal_only else orders(slices)
    return max(difference(answer(module, x[:, order]), expected) for order in tried)


def train_tied(
    module: nn.Module, slices: int, side: int, steps: int, tie: str = "mirror"
) -> nn.Module:
    """Tie the stem, take optimiser steps towards noise; return the network in eval mode."""
    mirror_stem(module, slices, tie, probe=noise(slices, side, torch.float32))
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module.train()
    x = noise(slices, side, next(module.parameters()).dtype, seed=3, batch=2)
    for step in range(steps):
        with torch.random.fork_rng():
            torch.manual_seed(step)
            loss = sum((out - 0.3).square().mean() for out in tensors_in(module(x)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def with_stem(module: nn.Module, family: Family, slices: int, init: str = "green") -> nn.Module:
    """Return a copy with a stem for S slices."""
    probe = noise(3, family.side, torch.float32)
    return initialise_stem(copy.deepcopy(module), slices, init, probe=probe)
