"""Whether an exported network answers like torch: both run on the same windows of noise, each in its own runtime."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenslice.model.exchange import ANSWER, IMAGE, example

TOLERANCE = 1e-4
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def difference(module: nn.Module, run: Run, shapes: Sequence[tuple[int, ...]], seed: int) -> float:
    """Return the largest difference of logits, relative to the largest logit that torch gives for the same windows.

    Parameters
    ----------
    module
        The original, in eval mode.
    run
        The exported network.
    shapes
        Shapes (B, S, y, x) of normalised windows.
    seed
        Of the noise of mean 0 and std 1.

    Returns
    -------
    float
        max |exported - torch| / max |torch|, the largest over the shapes; infinite where the exported network fails, or
        answers in another shape or with anything but numbers.
    """
    worst = 0.0
    for turn, shape in enumerate(shapes):
        x = example(shape, seed + turn)
        with torch.inference_mode():
            expected = module(x).numpy()
        try:
            found = run(x.numpy())
        except Exception:  # a size that was traced as fixed is refused by each runtime in its own way
            return float("inf")
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        worst = max(worst, float(np.abs(found - expected).max()) / largest)
    return worst


def run_graph(data: bytes) -> Run:
    """Make an ONNX model ready in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: Any = session.run([ANSWER], {IMAGE: x})[0]
        return np.asarray(answer)

    return run


def run_archive(data: bytes) -> Run:
    """Make a ``.pt2`` archive of our own ready in torch."""
    module = torch.export.load(io.BytesIO(data)).module()

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(x)).numpy())

    return run
