"""How to train: each field is the option of the same name of ``evenslice train``, and the key of its TOML file."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from evenslice.errors import BadInputError
from evenslice.labels.targets import TargetKind
from evenslice.learn.em import EM
from evenslice.learn.settings import OPTIONS, Settings, explained
from evenslice.model.stem import Init, Tie

SMALLEST_CROP, LARGEST_CROP = 32, 2**14
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["one-cycle", "cosine", "constant"]
Loss = Literal["bce", "ce", "dice", "bce+dice", "ce+dice"]
Augment = Literal["flips", "none", "em"]
Whole = Annotated[int, Field(ge=1, le=10**9)]
Part = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


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
        ``Z0:Z1``, slices of every volume that are looked at while training, or a list with one a volume; the last 20 % of
        each when None.
    steps, batch, crop
        Training steps, patches a step (of all devices together), their side in pixels.
    lr, schedule, warmup
        Largest learning rate, and how it changes: ``one-cycle``; ``cosine``: from 0 linearly up in the first ``warmup``
        part of the steps, then down along a cosine; ``constant``.
    weight_decay, clip
        Of AdamW; the largest norm that the gradient is let have, any when None.
    loss, class_weights
        Cross-entropy (``ce``, of one class ``bce``), 1 - soft Dice, or their sum; how much a pixel of each class counts in
        the cross-entropy, the background first, all alike when None.
    balance
        Part of the patches that are centred on a pixel of a foreground class, the class drawn evenly; the others lie anywhere.
    augment, em
        ``flips`` and quarter turns; ``none``; or ``em``: flips, and what goes wrong with sections, as strong as ``em`` says.
    precision
        Of the forward pass: ``fp32``; ``bf16`` or ``fp16`` with float32 weights (mixed precision); ``auto``: bf16 on a GPU
        that has it, else fp32.
    devices
        GPUs of this machine that share each batch, or processes on the CPU.
    looks
        How often the validation slices are looked at.
    patience
        Training ends after so many looks without a better Dice; never early when None.
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
    validation: str | list[str] | None = None
    steps: Whole = 1000
    batch: Whole = 4
    crop: Annotated[int, Field(ge=SMALLEST_CROP, le=LARGEST_CROP)] = 256
    lr: Positive = 1e-3
    schedule: Schedule = "one-cycle"
    warmup: Part = 0.1
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    clip: Positive | None = None
    loss: Loss = "ce+dice"
    class_weights: list[Positive] | None = None
    balance: Part = 0.0
    augment: Augment = "flips"
    em: EM = EM()
    precision: Precision = "auto"
    devices: Whole = 1
    looks: Whole = 4
    patience: Whole | None = None
    keep: Literal["best", "last"] = "best"
    seed: Annotated[int, Field(ge=0, le=2**32)] = 0

    def __init__(self, source: str = OPTIONS, /, **values: Any) -> None:
        """Refuse what cannot train; ``source`` stands before the name of a field in the error, ``--`` for options.

        Raises
        ------
        BadInputError
            If a field is unknown or holds what it cannot, or two fields contradict each other.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadInputError(explained(error, type(self), source)) from error
        if self.batch % self.devices:
            raise BadInputError(
                f"{source}batch is {self.batch} for {self.devices} devices, expected a multiple of {self.devices}: each takes the same part; change one"
            )
        if self.augment != "em" and self.em != EM():
            raise BadInputError(
                f"{source}augment is {self.augment!r} with strengths in em, expected 'em' for them; change one"
            )
