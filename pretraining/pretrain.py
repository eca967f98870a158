"""Pretrain the bundled encoder on six colour photographs: the script behind the weight file.

    OMP_NUM_THREADS=1 python pretraining/pretrain.py --steps 1500 --seed 0 \
        --out src/evenslice/model/bundled/resnet18_conv1-layer2.safetensors

The photographs come inside the scikit-image and scikit-learn wheels; nothing is fetched. The method
is an exemplar network (Dosovitskiy et al., arXiv 1406.6909): every place on a 64-pixel grid over
the photographs is a class of its own, and the network has to tell from a shifted, rotated,
mirrored, rescaled crop which place it sees. No person's label is used.

Nothing here treats one colour channel otherwise than another: one scalar mean and standard
deviation for all three, a contrast and brightness jitter common to all three, no conversion to
grey, no weights per channel. Whatever preference the first layer has at the end comes from the
photographs (and the seed). Arithmetic is bfloat16 autocast on the CPU, so another kind of processor
repeats the run only approximately.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

CROP = 64  # pixels a side, and the spacing of the grid of places
MEAN = STD = 0.5  # one number for all three channels
JITTER = 0.2  # log standard deviation of the contrast, common to the channels
# a place whose surroundings vary less than this (of 0..1) cannot be told from its neighbours
TEXTURED = 0.04
PHOTOGRAPHS = {
    "astronaut.png": skimage.data.astronaut,
    "chelsea.png": skimage.data.chelsea,
    "coffee.png": skimage.data.coffee,
    "rocket.jpg": skimage.data.rocket,
    "china.jpg": lambda: load_sample_image("china.jpg"),
    "flower.jpg": lambda: load_sample_image("flower.jpg"),
}


def photographs() -> list[Tensor]:
    """Every photograph as (1, 3, y, x), 0 to 1."""
    return [
        torch.from_numpy(np.array(load())).permute(2, 0, 1)[None].float() / 255
        for load in PHOTOGRAPHS.values()
    ]


def places(photos: list[Tensor]) -> list[tuple[int, int, int]]:
    """(photograph, y, x) of every grid place with something to see around it."""
    found = []
    for i, photo in enumerate(photos):
        height, width = photo.shape[-2:]
        for y in range(CROP // 2, height - CROP // 2 + 1, CROP):
            for x in range(CROP // 2, width - CROP // 2 + 1, CROP):
                around = photo[0, :, max(0, y - 48) : y + 48, max(0, x - 48) : x + 48]
                if around.std(dim=(1, 2)).mean() > TEXTURED:
                    found.append((i, y, x))
    return found


def uniform(low: float, high: float) -> float:
    """One number from torch's generator, so that one seed governs everything."""
    return low + (high - low) * torch.rand(()).item()


def crop(levels: list[list[Tensor]], place: tuple[int, int, int]) -> Tensor:
    """Cut a randomly shifted, turned, mirrored and scaled view of one place, (1, 3, CROP, CROP)."""
    i, y, x = place
    level = int(uniform(0, 1) < 0.4)  # 0: full resolution, 1: halved
    photo = levels[level][i]
    height, width = photo.shape[-2:]
    centre_y = (y + uniform(-CROP / 2, CROP / 2)) / 2**level
    centre_x = (x + uniform(-CROP / 2, CROP / 2)) / 2**level
    radius = CROP / 2 * math.exp(uniform(-1, 1) * math.log(1.5))
    angle, mirror = uniform(0, 2 * math.pi), 1 if uniform(0, 1) < 0.5 else -1
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)
    theta = [
        [cos * mirror / (width / 2), -sin / (width / 2), (centre_x + 0.5) / (width / 2) - 1],
        [sin * mirror / (height / 2), cos / (height / 2), (centre_y + 0.5) / (height / 2) - 1],
    ]
    grid = F.affine_grid(torch.tensor([theta]), (1, 3, CROP, CROP), align_corners=False)
    return F.grid_sample(photo, grid, padding_mode="reflection", align_corners=False)


def jitter(crops: Tensor) -> Tensor:
    """Change contrast and brightness of each crop, the channels alike, and normalise it."""
    n = len(crops)
    centre = crops.mean((1, 2, 3), keepdim=True)
    contrast = torch.exp(torch.randn(n, 1, 1, 1) * JITTER)
    brightness = torch.randn(n, 1, 1, 1) * JITTER * 0.3
    return ((crops - centre) * contrast + centre + brightness - MEAN) / STD


class Exemplar(nn.Module):
    """The encoder and a small classifier of places on top of it, discarded afterwards."""

    def __init__(self, classes: int):
        super().__init__()
        self.encoder = timm.create_model(
            "resnet18", pretrained=False, features_only=True, out_indices=(0, 1, 2)
        )
        self.head = nn.Sequential(
            nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, classes)
        )
        # Batch norm makes the stem's scale free: a small start lets what is learned outgrow the
        # random part.
        self.encoder.conv1.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[-1].mean((2, 3)))


def stem_norms(encoder: nn.Module) -> list[float]:
    """Norm of the first convolution's kernels per input channel R, G, B."""
    return encoder.conv1.weight.detach().float().pow(2).sum((0, 2, 3)).sqrt().tolist()


def pretrain(steps: int, seed: int, batch: int, lr: float, weight_decay: float) -> nn.Module:
    """Train and return the encoder."""
    torch.manual_seed(seed)
    photos = photographs()
    levels = [photos, [F.interpolate(photo, scale_factor=0.5, mode="area") for photo in photos]]
    where = places(photos)
    print(f"{len(photos)} photographs, {len(where)} places")
    net = Exemplar(len(where)).to(memory_format=torch.channels_last)
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    started, right = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        truth = torch.randint(len(where), (batch,))
        x = jitter(torch.cat([crop(levels, where[k]) for k in truth.tolist()]))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), truth, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right = 0.95 * right + 0.05 * (logits.argmax(1) == truth).float().mean().item()
        if step % 100 == 0 or step == steps:
            norms = " / ".join(f"{norm:.3f}" for norm in stem_norms(net.encoder))
            seconds = time.perf_counter() - started
            print(
                f"step {step}: {seconds:.0f} s, loss {loss.item():.3f}, right {right:.3f}, stem "
                f"{norms}",
                flush=True,
            )
    return net.encoder.eval()


def save(encoder: nn.Module, out: Path) -> None:
    """Write float16 weights (counters stay integers) with the facts a reader needs."""
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in encoder.state_dict().items()
    }
    scalars = ",".join([str(MEAN)] * 3), ",".join([str(STD)] * 3)
    facts = {
        "timm": "resnet18",
        "missing": "layer3, layer4, fc",
        "mean": scalars[0],
        "std": scalars[1],
        "origin": "Pretrained by the evenslice project itself (pretraining/pretrain.py) "
        "by telling apart places of six "
        "colour photographs that come with scikit-image and scikit-learn; made for the offline "
        "demo, see CARD.md.",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out, metadata=facts)
    norms = " / ".join(f"{norm:.4f}" for norm in torch.tensor(stem_norms(encoder.half())).tolist())
    print(f"{out}: {out.stat().st_size} bytes, stem norms R / G / B as stored {norms}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Pretrain the bundled encoder on six colour photographs."
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    encoder = pretrain(asked.steps, asked.seed, asked.batch, asked.lr, asked.weight_decay)
    save(encoder, asked.out)


if __name__ == "__main__":
    main()
