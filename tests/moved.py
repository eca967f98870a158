"""Networks whose weights were moved, so that nothing passes by initialisation."""

import torch


def perturb(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every parameter and running statistic, so that nothing passes by initialisation."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
            )
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=draw, dtype=buffer.dtype))
    return module
