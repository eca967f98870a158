"""The options of each verb: one frozen model, shared by command line, Python and workers.

The defaults, ranges and help texts of all options stand here once. Nothing here imports torch.
"""

import re
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from evenslice.errors import OPTION, BadInputError, explain

JsonObject: TypeAlias = dict[str, Any]  # what a JSON or TOML file holds
Init = Literal["rgb", "green", "red", "blue", "mean", "green-matched", "mirror", "centre", "random"]
Tie = Literal["none", "mirror", "uniform"]
Freeze = Literal["none", "stem", "encoder"]
TargetKind = Literal["auto", "foreground", "boundary", "classes"]
Region = Literal["predicted", "truth", "boundary", "all"]
Design = Literal["reversal", "latin"]
ScoresAs = Literal["semantic", "instances"]
Output = Literal["labels", "probabilities"]
Instances = Literal["none", "components", "watershed"]
Axis = Literal["z", "y", "x"]
Axes = Literal["z", "y", "x", "all"]
Tta = Literal["none", "reversal"]
Precision = Literal["auto", "fp32", "bf16"]
TrainPrecision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["one-cycle", "cosine", "constant"]
Loss = Literal["bce", "ce", "dice", "bce+dice", "ce+dice"]
Augment = Literal["flips", "none", "em"]
Device = Literal["auto", "cpu", "cuda"]
Format = Literal["onnx", "torch-export", "bioimageio"]

SMALLEST_CROP, LARGEST_CROP = 32, 2**14
LARGEST_TOLERANCE = 100.0  # pixels
MOST_SHARDS = 10**6
SMALLEST_NM, LARGEST_NM = 1e-3, 1e9
SMALLEST_TILE = 32  # pixels, of what a network is run on
# The time to parse such a key grows with the square of its depth.
DEEP = re.compile(r"(?:[\w-]+\s*\.\s*){64}")
DATA, MODEL, TRAINING = "Data", "Model", "Optimisation"  # panels of the help
AUGMENTATION, OUTPUT = "Augmentation", "Output"


def _numbers(value: object) -> object:
    """Read one number or several, as a text separated by commas or as a sequence."""
    if isinstance(value, str):
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError as error:
            raise ValueError("numbers separated by commas") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value),)
    return tuple(map(float, value)) if isinstance(value, Sequence) else value


def _sides(value: object) -> object:
    """Read three sides in nm."""
    sides = _numbers(value)
    fit = isinstance(sides, tuple) and all(SMALLEST_NM <= side <= LARGEST_NM for side in sides)
    if isinstance(sides, tuple) and not (fit and len(sides) == 3):
        raise ValueError("three numbers of nm (z, y, x), such as 50,4,4")
    return sides


def _pixels(value: Any) -> object:
    sides = tuple(value.split(",")) if isinstance(value, str) else value
    if sides is None or (len(sides) == 2 and all(str(s).isdecimal() and int(s) for s in sides)):
        return sides and tuple(map(int, sides))
    raise ValueError("two numbers of pixels (y, x), such as 96,128")


def _names(value: object) -> object:
    """Read names, as a text separated by commas or as a sequence."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return tuple(value) if isinstance(value, Sequence) else value


def _number_or_word(value: object) -> object:
    """Read a whole number from a text; ``none`` is None, other words stay."""
    if not isinstance(value, str):
        return value
    return int(value) if value.lstrip("-").isdecimal() else None if value == "none" else value


def _shard(value: object) -> object:
    """Read ``I/N``."""
    if not isinstance(value, str):
        return value
    index, _, count = value.partition("/")
    whole = index.isdecimal() and count.isdecimal()
    if not (whole and 1 <= int(index) <= int(count) <= MOST_SHARDS):
        raise ValueError("I/N with I from 1 to N, such as 1/4")
    return int(index), int(count)


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
VoxelSides = Annotated[tuple[float, float, float], BeforeValidator(_sides)]
NumberOrWord = BeforeValidator(_number_or_word)
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Deviations = Annotated[float, Field(ge=0, le=5)]


def option(
    default: object,
    help: str,
    *,
    panel: str | None = None,
    metavar: str | None = None,
    flag: str | None = None,
    **limits: Any,
) -> Any:
    """Declare an option: its default, its help, and how the command line shows it."""
    shown: JsonObject = {"panel": panel, "metavar": metavar, "flag": flag}
    return Field(default, description=help, json_schema_extra=shown, **limits)


model_option, data_option, training_option, augmentation_option, output_option = (
    partial(option, panel=panel) for panel in (MODEL, DATA, TRAINING, AUGMENTATION, OUTPUT)
)
DEVICE = option("auto", "Where to compute; auto is a GPU if there is one.")
ROI = option(None, "Only this box of the volume.", metavar="Z0:Z1,Y0:Y1,X0:X1")


class Table(BaseModel):
    """A table of settings: frozen, of the stated types only, with no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnyTable = TypeVar("AnyTable", bound=Table)


class Options(Table):
    """The options of a verb, or the settings of a file; a wrong one is a ``BadInputError``."""

    def __init__(self, source: str = OPTION, /, **values: Any) -> None:
        """Check the values; ``source`` stands before the name of a field in the error.

        Raises
        ------
        BadInputError
            If a field is unknown or holds what it cannot, or two fields contradict each other.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadInputError(explain(error, type(self), source)) from error

    @classmethod
    def read(cls, values: JsonObject, source: object) -> Self:
        """Make the options of what a file holds; errors name the ``source``."""
        return cls(f"{source}: ", **values)

    @classmethod
    def of(cls, options: Self | None, changes: JsonObject) -> Self:
        """Return ``options`` (None: all defaults) with ``changes``, keyword arguments of a verb."""
        given = {} if options is None else options.model_dump(exclude_unset=True)
        return cls(**(given | dict(changes)))


def validated(kind: type[AnyTable], values: JsonObject, source: str) -> AnyTable:
    """Make a table of the values found in ``source``, or raise ``BadInputError`` naming the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInputError(explain(error, kind, f"{source}: ")) from error


class SeedOptions(Options):
    """Where chance comes from."""

    seed: int = option(0, "Random seed.", ge=0, le=2**32)


class DemoOptions(SeedOptions):
    """What the demo leaves open."""

    device: Device = DEVICE


class ModelOptions(SeedOptions):
    """How an external model is to be taken."""

    slices: int | None = model_option(
        None, "Number of input slices, if the model file does not record it."
    )
    mean: Numbers | None = model_option(
        None, "Normalisation in raw intensities: one number, or one per slot.", metavar="M"
    )
    std: Numbers | None = model_option(
        None, "Standard deviation, same format as --mean.", metavar="D"
    )
    trust: bool = model_option(False, "Open a .pt2 file, which can run code when it is opened.")

    answer: str | None = option(
        None,
        "Which output of an external model is its prediction, if it returns several; :N takes one "
        "channel.",
        metavar="NAME_OR_INDEX[:N]",
        panel=MODEL,
    )
    probe: Annotated[tuple[int, int] | None, BeforeValidator(_pixels)] = option(
        None,
        "Size that an external model takes, if none of the usual ones is found to run.",
        metavar="Y,X",
        panel=MODEL,
    )


class InspectOptions(ModelOptions):
    """What ``inspect`` does with a model or a volume."""

    verify: bool = option(
        False, "Measure the response to the reversal; exit 1 if the model is not symmetric."
    )
    target: TargetKind = option("auto", "What the labels (--labels) mean, as in train.")
    ignore_label: int | None = option(None, "Label of what is not annotated.", metavar="N")


class AuditOptions(ModelOptions):
    """How a model is audited."""

    methods: Names | None = option(
        None,
        "Attribution methods: ablation, ablation-copy, shapley, gradient, integrated-gradients "
        "(these are the default), input-x-gradient, smoothgrad. The response to the reversal is "
        "always measured.",
        metavar="A,B",
    )
    windows: Annotated[int | Literal["auto"], NumberOrWord] = option(
        "auto", "Number of windows; auto: until decided, at most 64.", metavar="N|auto"
    )
    tile: int = option(256, "Side of a window in pixels.", ge=16)
    region: Region = option(
        "predicted", "Pixels to explain: those of the predicted class, the true class, ..."
    )
    design: Design = option(
        "reversal", "latin also measures all cyclic shifts: are all slots alike?"
    )
    roi: str | None = ROI
    axis: Axis = option("z", "Slice along this axis; for isotropic volumes.")
    margin: float = option(0.05, "Mirror pairs within +-margin count as symmetric.", gt=0, lt=1)
    confidence: float = option(0.95, "Confidence of the intervals.", gt=0, lt=1)
    device: Device = DEVICE


class FixOptions(ModelOptions):
    """How the stem of a trained model is made symmetric."""

    tie: Tie = option("none", "Constraint on the stem, kept in further training.")
    init: Init | None = option(
        None, "Replace the stem instead of averaging it; the model then needs retraining."
    )
    tta: Tta = option(
        "none", "reversal: keep the weights; predict as the mean of each window and its reversal."
    )
    device: Device = DEVICE


class StudyOptions(Options):
    """How a study is run; what it compares stands in its file."""

    retry: bool = option(False, "Run the cells that failed again.")
    scheduler: str | None = option(
        None, "Run the cells on the workers of a Dask cluster.", metavar="ADDRESS"
    )
    device: Device = DEVICE


class EvaluateOptions(Options):
    """How a segmentation is compared with the ground truth."""

    as_: ScoresAs = option(
        "semantic", "Compare classes (Dice, IoU) or objects (Rand, VOI, matching).", flag="--as"
    )
    threshold: Fraction = option(0.5, "Probability above which a voxel is foreground.")
    ignore: Annotated[int | Literal["auto"] | None, NumberOrWord] = option(
        "auto",
        "Ground-truth label to leave out. By default none for classes; for objects 0, which Rand "
        "and VOI leave out (matching and Dice take it as background). none: 0 is a segment like "
        "any other; N: N is left out of all scores.",
        metavar="N|none",
    )
    components: bool = option(
        False,
        "Number the connected components of a mask (one foreground number) before objects are "
        "compared.",
    )
    tolerance: float = option(
        2.0,
        "How far an outline may lie from the true one, within the slice.",
        metavar="PIXELS",
        ge=0,
        le=LARGEST_TOLERANCE,
    )
    roi: str | None = ROI

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.components and self.as_ != "instances":
            raise ValueError(
                "components was given for classes, expected --as instances with it; add it, or "
                "leave it out"
            )
        return self


class SegmentOptions(ModelOptions):
    """How a volume is segmented."""

    output: Output = output_option(
        "labels", "Content of a TIFF: class numbers or objects, or probabilities as uint8."
    )
    threshold: Fraction = option(0.5, "Probability above which a voxel is foreground.")
    tile: int | None = option(
        None,
        "Side of a tile with its halo in pixels; by default whole slices where they fit.",
        ge=SMALLEST_TILE,
    )
    precision: Precision = option(
        "auto", "auto is bf16 where the processor has matrix instructions for it."
    )
    memory: Positive | None = option(
        None, "Memory to use; by default half of what is free.", metavar="GB"
    )
    tta: Tta | None = option(
        None,
        "reversal: average over each window and its reversal; by default as the model file says.",
    )
    roi: str | None = ROI
    axis: Axes = option("z", "Slice along this axis, or average the three; for isotropic volumes.")
    normalisation: Literal["model", "volume"] = option(
        "model", "Normalise by the model's mean and std, or by the volume's own."
    )
    instances: Instances = output_option(
        "none", "Make objects: components of each class, or what predicted boundaries enclose."
    )
    min_size: int = output_option(1, "Drop objects of fewer voxels.", metavar="VOXELS", ge=1)
    voxel_nm: VoxelSides | None = option(
        None,
        "Voxel size in nm, where the file does not state it.",
        metavar="Z,Y,X",
        flag="--voxel-size",
    )
    scheduler: str | None = option(
        None, "A Dask scheduler whose workers see the same files.", metavar="ADDRESS"
    )
    shard: Annotated[tuple[int, int] | None, BeforeValidator(_shard)] = option(
        None, "Do part I of N; the last shard to finish writes OUT.", metavar="I/N"
    )
    device: Device = DEVICE

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_size > 1 and self.instances == "none":
            raise ValueError(
                "min-size was given without objects, expected --instances with it; add it, or "
                "leave it out"
            )
        if self.shard is not None and self.scheduler is not None:
            raise ValueError(
                "shard and --scheduler were both given, expected one of them; leave one out"
            )
        return self


class ExportOptions(ModelOptions):
    """How a model is written for other programs."""

    format: Format | None = option(None, "By default from the ending of OUT.")
    opset: int | None = option(
        None, "ONNX opset, 16 to 23; by default 18.", metavar="N", ge=16, le=23
    )
    tile: int = option(
        256, "Height and width, where the network takes only one size.", metavar="N", ge=1
    )
    authors: Names = option(
        (), "Author of a bioimage.io package; repeatable.", metavar="NAME", flag="--author"
    )
    license: str | None = option(
        None, "Licence of a bioimage.io package, for example CC-BY-4.0.", metavar="SPDX"
    )


class Brightness(Table):
    """A constant is added to a section: up to ``size`` standard deviations, either way."""

    probability: Fraction = 0.5
    size: Deviations = 0.3


class Contrast(Table):
    """A section's distance from its mean is multiplied by 1 - ``size`` to 1 + ``size``."""

    probability: Fraction = 0.5
    size: Annotated[float, Field(ge=0, lt=1)] = 0.3


class Blur(Table):
    """A section is out of focus: blurred by a Gaussian of sigma up to ``size`` pixels."""

    probability: Fraction = 0.1
    size: Annotated[float, Field(ge=0, le=10)] = 1.5


class Noise(Table):
    """Gaussian noise, its deviation up to ``size`` of the volume's, is added to a section."""

    probability: Fraction = 0.3
    size: Deviations = 0.3


class Missing(Table):
    """A neighbour slice is lost: grey in a fraction ``blank``, else a copy of the centre."""

    probability: Fraction = 0.05
    blank: Fraction = 0.5


class Shift(Table):
    """A neighbour slice is misaligned by up to ``size`` whole pixels along y and x."""

    probability: Fraction = 0.1
    size: Annotated[int, Field(ge=0, le=64)] = 4


class EM(Table):
    """EM section artefacts, each with the probability that a section suffers it."""

    brightness: Brightness = Brightness()
    contrast: Contrast = Contrast()
    blur: Blur = Blur()
    noise: Noise = Noise()
    missing: Missing = Missing()
    shift: Shift = Shift()


class TrainOptions(SeedOptions):
    """How a 2D+ model is trained; also the keys of the TOML file of ``train --config``."""

    arch: str = model_option(
        "unet", "unet, unetplusplus, fpn, deeplabv3plus, segformer, upernet or dpt."
    )
    encoder: str = model_option("tf_efficientnet_lite0", "A timm name, or smp:NAME.")
    encoder_depth: int | None = model_option(None, "Stages of the encoder.", ge=1, le=5)
    weights: str = model_option(
        "imagenet", "imagenet (of an installed package, else of the hub), none, or a file."
    )
    init: Init = model_option("green", "First-layer initialisation from the pretrained weights.")
    slices: int = model_option(3, "Consecutive slices the model sees: odd, 1 to 9.")
    tie: Tie = model_option("none", "Constraint on the stem, kept through training.")
    freeze: Freeze = model_option("none", "Part that is not trained: stem or encoder.")
    augment_reversal: bool = augmentation_option(
        False,
        "Reverse half of the windows.",
        validation_alias=AliasChoices("augment_reversal", "reverse_z"),
    )
    z_order: Literal["forward", "reversed"] = data_option(
        "forward", "reversed: learn as if the volume were stored from its other end."
    )
    target: TargetKind = data_option("auto", "What the labels mean.")
    ignore_label: int | None = data_option(None, "Label ignored by the loss.")
    validation: str | list[str] | None = data_option(
        None, "Validation slices of each volume; by default the last 20 %.", metavar="Z0:Z1"
    )
    steps: Count = training_option(1000, "Training steps.")
    batch: Count = training_option(4, "Patches per step, over all devices.")
    crop: int = training_option(
        256, "Side of a patch in pixels.", ge=SMALLEST_CROP, le=LARGEST_CROP
    )
    lr: Positive = training_option(1e-3, "Largest learning rate.")
    schedule: Schedule = training_option(
        "one-cycle", "Learning-rate schedule; cosine: linear warm-up, then cosine decay."
    )
    warmup: Fraction = training_option(
        0.1, "Fraction of the steps in which the cosine schedule rises."
    )
    weight_decay: float = training_option(0.01, "AdamW weight decay.", ge=0, allow_inf_nan=False)
    clip: Positive | None = training_option(
        None, "Clip the gradient norm at X; by default it is not clipped.", metavar="X"
    )
    loss: Loss = training_option("ce+dice", "Loss; ce of one class is bce.")
    class_weights: Annotated[tuple[Positive, ...], BeforeValidator(_numbers)] | None = (
        training_option(
            None, "Weight of each class in the cross-entropy, background first.", metavar="A,B"
        )
    )
    balance: Fraction = data_option(
        0.0, "Fraction of patches centred on a foreground class, classes drawn evenly."
    )
    augment: Augment = augmentation_option(
        "flips", "em: flips and EM section artefacts (table [em] of FILE.toml)."
    )
    em: EM = EM()
    precision: TrainPrecision = training_option(
        "auto", "bf16 and fp16 keep float32 weights; auto is bf16 on a GPU that has it."
    )
    devices: Count = training_option(1, "GPUs that share each batch; processes with --device cpu.")
    validation_runs: Count = training_option(
        4, "Number of validation runs.", validation_alias=AliasChoices("validation_runs", "looks")
    )
    patience: Count | None = training_option(
        None, "Stop after N validation runs without a better Dice; by default never.", metavar="N"
    )
    keep: Literal["best", "last"] = output_option(
        "best", "Which checkpoint to save as OUT, by validation Dice."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch % self.devices:
            raise ValueError(
                f"batch is {self.batch} for {self.devices} devices, expected a multiple of "
                f"{self.devices}: each takes the same part; change one"
            )
        if self.augment != "em" and self.em != EM():
            raise ValueError(
                f"augment is {self.augment!r} with strengths in em, expected 'em' for them; "
                "change one"
            )
        return self


def read_toml(path: Path) -> JsonObject:
    """Read a TOML file.

    Raises
    ------
    BadInputError
        If there is no such file, or it is not TOML.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise BadInputError(f"{path} {found}, expected a TOML file of settings; check the path")
    try:
        text = path.read_text(encoding="utf-8")
        if DEEP.search(text):
            raise RecursionError
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deep"
        raise BadInputError(
            f"{path} is not TOML ({reason}), expected lines such as key = value; correct it"
        ) from error


NAMED_WEIGHTS = ("imagenet", "none")


class More(Table):
    """Another volume to train on, with its labels."""

    volume: str
    labels: str


class TrainFile(TrainOptions):
    """A settings file: the fields of ``TrainOptions``, and ``[[more]]`` volumes to train on."""

    more: list[More] = Field(default_factory=list)

    def options(self, **given: object) -> TrainOptions:
        """Return the options of the file, replaced by those ``given`` on the command line."""
        return TrainOptions(**(self.model_dump(exclude={"more"}, exclude_unset=True) | given))


def read_config(path: Path) -> TrainFile:
    """Read a settings file; relative paths in it are meant from its folder, and come back so.

    Raises
    ------
    BadInputError
        If it cannot be read, or a key is unknown or holds what it cannot; the key is named.
    """
    found = TrainFile.read(read_toml(path), path)
    folder = path.parent
    more = [
        More(volume=str(folder / one.volume), labels=str(folder / one.labels)) for one in found.more
    ]
    changes: JsonObject = {"more": more} if more else {}
    if found.weights not in NAMED_WEIGHTS:
        changes["weights"] = str(folder / found.weights)
    return found.model_copy(update=changes)
