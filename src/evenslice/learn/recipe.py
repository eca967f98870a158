"""How to train: each field is the option of the same name of ``evenslice train`` and the key of its TOML file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from evenslice.errors import BadInputError
from evenslice.labels.targets import TargetKind
from evenslice.model.stem.adapt import Init, Tie
from evenslice.options import OPTIONS, Settings, explained, read_toml

Fraction = Annotated[float, Field(ge=0, le=1)]
Deviations = Annotated[float, Field(ge=0, le=5)]


class Brightness(Settings):
    """A constant is added to a section: up to ``size`` standard deviations, either way."""

    probability: Fraction = 0.5
    size: Deviations = 0.3


class Contrast(Settings):
    """The distance of a section from the mean grey value is multiplied by a factor of 1 - ``size`` to 1 + ``size``."""

    probability: Fraction = 0.5
    size: Annotated[float, Field(ge=0, lt=1)] = 0.3


class Blur(Settings):
    """A section is out of focus: blurred by a Gaussian whose sigma is up to ``size`` pixels."""

    probability: Fraction = 0.1
    size: Annotated[float, Field(ge=0, le=10)] = 1.5


class Noise(Settings):
    """Gaussian noise is added to a section, its deviation up to ``size`` of that of the volume."""

    probability: Fraction = 0.3
    size: Deviations = 0.3


class Missing(Settings):
    """A neighbour slice is lost: a ``blank`` part of those is the mean grey value, the others are a copy of the centre."""

    probability: Fraction = 0.05
    blank: Fraction = 0.5


class Shift(Settings):
    """A neighbour slice is badly aligned: shifted by up to ``size`` whole pixels along y and x."""

    probability: Fraction = 0.1
    size: Annotated[int, Field(ge=0, le=64)] = 4


class EM(Settings):
    """What goes wrong with sections under the microscope, each with the probability that a section suffers it."""

    brightness: Brightness = Brightness()
    contrast: Contrast = Contrast()
    blur: Blur = Blur()
    noise: Noise = Noise()
    missing: Missing = Missing()
    shift: Shift = Shift()


SMALLEST_CROP, LARGEST_CROP = 32, 2**14
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["one-cycle", "cosine", "constant"]
Loss = Literal["bce", "ce", "dice", "bce+dice", "ce+dice"]
Augment = Literal["flips", "none", "em"]
Whole = Annotated[int, Field(ge=1, le=10**9)]
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
    warmup: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    clip: Positive | None = None
    loss: Loss = "ce+dice"
    class_weights: list[Positive] | None = None
    balance: Fraction = 0.0
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


NAMED_WEIGHTS = ("imagenet", "bundled", "none")


class More(Settings):
    """Another volume to train on, with its labels."""

    volume: str
    labels: str


class TrainFile(Recipe):
    """A settings file: the fields of ``Recipe``, and ``[[more]]``.

    Attributes
    ----------
    more
        Volumes beside the one on the command line.
    """

    more: list[More] = Field(default_factory=list)

    def __init__(self, source: str = OPTIONS, /, **values: Any) -> None:
        """Refuse what ``Recipe`` refuses."""
        super().__init__(source, **values)

    def recipe(self, **given: Any) -> Recipe:
        """Return the recipe of the file, apart from what was ``given`` as options."""
        return Recipe(**(self.model_dump(exclude={"more"}, exclude_unset=True) | given))


def read_config(path: Path) -> TrainFile:
    """Read a settings file; relative paths in it are meant from its folder, and come back so.

    Raises
    ------
    BadInputError
        If it cannot be read, or a key is unknown or holds what it cannot; the key is named.
    """
    found = TrainFile(f"{path}: ", **read_toml(path))
    folder = path.parent
    more = [
        More(volume=str(folder / one.volume), labels=str(folder / one.labels)) for one in found.more
    ]
    changes: dict[str, Any] = {"more": more} if more else {}
    if found.weights not in NAMED_WEIGHTS:
        changes["weights"] = str(folder / found.weights)
    return found.model_copy(update=changes)
