"""How to train: each field is the option of the same name of ``evenslice train``, and the key of its TOML file."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from evenslice.errors import BadInputError
from evenslice.labels.targets import TargetKind
from evenslice.learn.settings import OPTIONS, Settings, explained
from evenslice.model.stem import Init, Tie

SMALLEST_CROP = 32
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Whole = Annotated[int, Field(ge=1)]


class Recipe(Settings):
    """How to train a 2D+ model.

    Attributes
    ----------
    arch, encoder, encoder_depth, weights, init, slices, tie
        The network, see ``build_model``.
    reverse_z
        Whether half of the windows are reversed.
    target, ignore_label
        What the labels mean; the label that is not learnt from.
    validation
        ``Z0:Z1``, slices that are looked at while training; the last 20 % when None.
    steps, batch, crop, lr
        Training steps, patches a step, their side in pixels, largest learning rate.
    precision
        Of the forward pass: ``fp32``; ``bf16`` or ``fp16`` with float32 weights (mixed precision); ``auto``: bf16 on a GPU
        that has it, else fp32.
    looks
        How often the validation slices are looked at.
    keep
        Which state is scored and saved under the name asked for: the ``best`` on the validation slices, or the ``last``.
    seed
        Of everything random.
    """

    arch: str = "unet"
    encoder: str = "resnet18"
    encoder_depth: Annotated[int, Field(ge=1, le=5)] | None = None
    weights: str = "imagenet"
    init: Init = "green"
    slices: int = 3
    tie: Tie = "none"
    reverse_z: bool = False
    target: TargetKind = "auto"
    ignore_label: int | None = None
    validation: str | None = None
    steps: Whole = 1000
    batch: Whole = 4
    crop: Annotated[int, Field(ge=SMALLEST_CROP)] = 256
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    precision: Precision = "auto"
    looks: Whole = 4
    keep: Literal["best", "last"] = "best"
    seed: Annotated[int, Field(ge=0)] = 0

    def __init__(self, source: str = OPTIONS, /, **values: Any) -> None:
        """Refuse what cannot train; ``source`` stands before the name of a field in the error, ``--`` for options.

        Raises
        ------
        BadInputError
            If a field is unknown or holds what it cannot.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadInputError(explained(error, type(self), source)) from error
