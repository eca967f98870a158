"""The path through a GPU: pinned memory, asynchronous copies, bfloat16."""

import numpy as np
import pytest
import torch

from evenslice import open_volume, segment
from evenslice.model.predict import Runner, Settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-3), ("bf16", 0.03)])
def test_a_gpu_answers_like_the_cpu(make_model, precision, apart):
    windows = np.random.default_rng(0).normal(size=(5, 3, 96, 64)).astype(np.float32)
    here = Runner(make_model(), Settings()).start(windows).result()
    there = Runner(make_model(), Settings("cuda", precision)).start(windows).result()
    np.testing.assert_allclose(there, here, atol=apart)


def test_a_volume_through_a_gpu(tmp_path, grey, make_model):
    segment(make_model(), grey, tmp_path / "cpu.zarr", device="cpu", precision="fp32")
    done = segment(make_model(), grey, tmp_path / "gpu.zarr", device="cuda", precision="fp32")
    assert done.plan.settings.batch > 1
    box = (slice(None),) * 3
    here, there = (open_volume(tmp_path / f"{name}.zarr").read(box) for name in ("cpu", "gpu"))
    np.testing.assert_allclose(there, here, atol=1e-3)
