"""What a file of weights seems to be for, told from the names and shapes in it."""

import re
from collections.abc import Mapping

from torch import Tensor

RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
FAMILIES = {
    r"relative_position_bias_table|cpb_mlp": "a Swin transformer or another with windows",
    r"(^|\.)(encoder|vit|dinov2)\.(encoder\.)?layers?\.(encoder_layer_)?0\.": "a transformer in the names of torchvision or transformers",
    r"(^|\.)block1\.0\.attn\.": "a mix transformer (mit_*)",
    r"denseblock1\.": "a DenseNet",
    r"conv_stem\.weight": "an EfficientNet or MobileNet of timm",
    r"_conv_stem\.weight": "an EfficientNet of segmentation-models-pytorch",
    r"(^|\.)features\.0\.0\.weight": "a network in the names of torchvision",
    r"conv_dw\.weight|dwconv\.weight": "a ConvNeXt or a relative",
}


def likeness(state: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Return what weights seem to be for, ``""`` if nothing tells.

    Parameters
    ----------
    state
        Tensors by name, under any prefix.
    facts
        What the file says about itself.
    """
    said = facts.get("timm") or facts.get("architecture")
    return said or _resnet(state) or _vit(state) or _family(state)


def _resnet(state: Mapping[str, Tensor]) -> str:
    found = [re.search(r"(?:^|\.)layer([1-4])\.(\d+)\.conv1\.weight$", name) for name in state]
    blocks = [0, 0, 0, 0]
    for match in filter(None, found):
        stage = int(match[1]) - 1
        blocks[stage] = max(blocks[stage], int(match[2]) + 1)
    deep = any(re.search(r"(^|\.)layer1\.0\.conv3\.weight$", name) for name in state)
    counts = tuple(n for n in blocks if n)
    names = [name for (stages, deeper), name in RESNETS.items() if stages[: len(counts)] == counts and deeper == deep]
    return " or ".join(names) if counts else ""


def _vit(state: Mapping[str, Tensor]) -> str:
    blocks = {int(m[1]) for name in state if (m := re.search(r"(?:^|\.)blocks\.(\d+)\.attn\.qkv\.weight$", name))}
    patch = next((t for name, t in state.items() if name.endswith("patch_embed.proj.weight") and t.ndim == 4), None)
    if not blocks or patch is None or any("relative_position_bias_table" in name for name in state):
        return ""
    return f"a vision transformer of {max(blocks) + 1} blocks, width {patch.shape[0]}, patch {patch.shape[-1]}"


def _family(state: Mapping[str, Tensor]) -> str:
    return next((words for shape, words in FAMILIES.items() if any(re.search(shape, name) for name in state)), "")
