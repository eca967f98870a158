"""Demo: the main job end to end on a phantom with ImageNet weights, offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.data.phantom import phantom
from evenslice.evidence.result import Audit
from evenslice.labels.metrics import Scores
from evenslice.model.provenance import provenance_of
from evenslice.model.weights_source import weights_record
from evenslice.options import AuditOptions, DemoOptions, Init, JsonObject
from evenslice.progress import Progress, prefixed, silent
from evenslice.verbs.audit import audit
from evenslice.verbs.train import train
from evenslice.volume.array import Volume
from evenslice.volume.files import save_volume

INITS: tuple[Init, ...] = ("rgb", "green", "mirror")
ENCODER = "tf_efficientnet_lite0"
SHAPE = (60, 160, 160)
STEPS = 120
RATE = 5e-4
CROP = 128
TILE = 64
WINDOWS, VIEWS = 40, 3


@dataclass(frozen=True)
class DemoRow:
    """One model of the demo: its initialisation, its scores and its audit."""

    init: Init
    scores: Scores
    audit: Audit

    def to_dict(self) -> JsonObject:
        """Return the row as ``demo.json`` has it."""
        method = self.audit.methods["gradient"].to_dict()
        keys = ("shares", "mirror_index", "mirror_low", "mirror_high")
        return {
            "init": self.init,
            "dice": self.scores.dice,
            **{key: method[key] for key in keys},
            "verdict": self.audit.verdict,
            "verdicts": {name: found.verdict for name, found in self.audit.methods.items()},
        }


@dataclass(frozen=True)
class Demo:
    """All rows of the demo, and what was done."""

    rows: tuple[DemoRow, ...]
    facts: dict[str, str]
    provenance: JsonObject

    def to_dict(self) -> JsonObject:
        """Return the demo as ``demo.json`` has it."""
        rows = [row.to_dict() for row in self.rows]
        return {"schema": "evenslice.demo/1", "rows": rows, "provenance": self.provenance}


def run_demo(
    folder: Path,
    options: DemoOptions | None = None,
    *,
    steps: int = STEPS,
    progress: Progress = silent,
    **changes: Any,
) -> Demo:
    """Train with stems of three inits on a phantom, and audit them on the same windows.

    Parameters
    ----------
    folder
        Existing; gets the phantom, its labels and the models.
    options, changes
        The options of ``DemoOptions``, as an object, as keyword arguments, or both.
    steps
        Training steps.
    progress
        Shows the progress.
    """
    options = DemoOptions.of(options, changes)
    seed, device = options.seed, options.device
    made = phantom(SHAPE, seed)
    raw = Volume(made.raw, made.voxel_nm, str(folder / "phantom.tif"))
    membranes = Volume(made.membranes, made.voxel_nm, str(folder / "membranes.tif"), "labels")
    save_volume(folder / "phantom.tif", raw)
    save_volume(folder / "membranes.tif", membranes)
    request = AuditOptions(
        methods=("gradient", "ablation"), windows=WINDOWS, tile=TILE, seed=seed, device=device
    )
    rows = []
    for init in INITS:
        trained = train(
            raw,
            membranes,
            folder / f"{init}.safetensors",
            device=device,
            progress=prefixed(progress, init),
            encoder=ENCODER,
            init=init,
            steps=steps,
            crop=CROP,
            lr=RATE,
            seed=seed,
        )
        trained.last.unlink()
        trained.log.unlink()
        found = audit(
            trained.model,
            raw,
            request,
            labels=membranes,
            views=VIEWS,
            label=init,
            progress=progress,
        )
        rows.append(DemoRow(init, trained.scores, found))
    facts = {
        "volume": f"phantom, {_product(SHAPE)} voxels of {_product(made.voxel_nm)} nm (z, y, x)",
        "target": "membranes",
        "network": f"U-Net on {ENCODER}, pretrained on ImageNet",
        "training": f"{steps} steps of 4 x {CROP} x {CROP}",
        "Dice": "on the last 20 % of slices, after a gap of 3",
    }
    weights = weights_record(ENCODER, "imagenet")
    provenance = provenance_of(seed, volume=raw, labels=membranes, weights=weights)
    for record in provenance["inputs"].values():  # all lie in the folder, wherever it will be
        record["name"] = Path(record["name"]).name
    return Demo(tuple(rows), facts, provenance)


def _product(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)
