"""Measure and remove the slice asymmetry that RGB pretraining leaves in 2D+ models of EM.

The names below are the whole front page; each loads what it needs when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenslice.learn.callback import MirrorIndexCallback
    from evenslice.model.build import build_model
    from evenslice.model.checkpoint import load_model, save_model
    from evenslice.model.stem.adapt import initialise_stem, mirror_stem, uniform_stem
    from evenslice.segmentation.run import segment
    from evenslice.verbs.assert_symmetric import assert_symmetric
    from evenslice.verbs.audit import audit
    from evenslice.verbs.evaluate import evaluate
    from evenslice.verbs.fix import fix
    from evenslice.verbs.train import train
    from evenslice.volume.array import Volume
    from evenslice.volume.files import open_volume, save_volume

__version__ = "0.1.0"
__all__ = [
    "MirrorIndexCallback",
    "Volume",
    "assert_symmetric",
    "audit",
    "build_model",
    "evaluate",
    "fix",
    "initialise_stem",
    "load_model",
    "mirror_stem",
    "open_volume",
    "save_model",
    "save_volume",
    "segment",
    "train",
    "uniform_stem",
]

_HOMES = {
    "MirrorIndexCallback": "evenslice.learn.callback",
    "Volume": "evenslice.volume.array",
    "assert_symmetric": "evenslice.verbs.assert_symmetric",
    "audit": "evenslice.verbs.audit",
    "build_model": "evenslice.model.build",
    "evaluate": "evenslice.verbs.evaluate",
    "fix": "evenslice.verbs.fix",
    "initialise_stem": "evenslice.model.stem.adapt",
    "load_model": "evenslice.model.checkpoint",
    "mirror_stem": "evenslice.model.stem.adapt",
    "open_volume": "evenslice.volume.files",
    "save_model": "evenslice.model.checkpoint",
    "save_volume": "evenslice.volume.files",
    "segment": "evenslice.segmentation.run",
    "train": "evenslice.verbs.train",
    "uniform_stem": "evenslice.model.stem.adapt",
}


def __getattr__(name: str) -> Any:
    """Load a name of the front page when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'evenslice' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the front page."""
    return sorted([*globals(), *__all__])
