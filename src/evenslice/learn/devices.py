"""How many devices there are to train on."""

import os

import torch

from evenslice.errors import BadInputError

FEWEST_CORES = 2  # two processes on one core are slow, and right


def check_devices(count: int, device: torch.device, asked: str) -> None:
    """Raise ``BadInputError`` if there are fewer devices than asked for; several on the CPU must be asked for by name."""
    cores = max(FEWEST_CORES, os.cpu_count() or 1)
    if device.type == "cpu" and asked == "cpu" and count > cores:
        raise BadInputError(
            f"--devices is {count} for processes on {cores} processor cores, expected at most one a core; use fewer"
        )
    if count == 1 or (device.type == "cpu" and asked == "cpu"):
        return
    found = torch.cuda.device_count() if device.type == "cuda" else 0
    if found < count:
        raise BadInputError(
            f"--devices is {count} and {found} GPUs were found, expected as many; use fewer, or --device cpu for processes without a GPU"
        )
