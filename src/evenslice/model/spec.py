"""What a model is: all that is needed to rebuild it, and the model itself."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.logits import Ensemble, plain
from evenslice.model.source import Form
from evenslice.model.stem.adapt import INITS, TIES, check_choice
from evenslice.options import Init, JsonObject, Tie
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import check_slices

Metadata: TypeAlias = JsonObject  # a JSON object, as a model file holds it
TTAS = ("none", "reversal")
FORBIDDEN = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


@dataclass(frozen=True)
class Spec:
    """How to build a network."""

    arch: str = "unet"  # of segmentation-models-pytorch, in lower case
    encoder: str = "tf_efficientnet_lite0"  # a timm name, or smp:NAME
    encoder_depth: int | None = None  # stages; None: the architecture's default
    slices: int = 3
    classes: int = 1  # output channels: 1 for foreground, else with background
    init: Init = "green"
    tie: Tie = "none"
    options: Metadata = field(default_factory=dict)  # of the encoder, as {"pad_type": "same"}
    channels: int = 3  # of the images that the encoder was pretrained on

    def __post_init__(self) -> None:
        """Raise ``BadInputError`` for what cannot be built."""
        check_slices(self.slices)
        check_choice("init", self.init, INITS)
        check_choice("tie", self.tie, TIES)
        if self.classes < 1:
            raise BadInputError(
                f"the number of classes is {self.classes}, expected 1 (foreground) or more; use 1"
            )
        # timm would read the files that these options name
        if files := [name for name in self.options if name in FORBIDDEN]:
            raise BadInputError(
                f"the encoder option {files[0]!r} names a file, expected options of the "
                "architecture; give weights by --weights FILE"
            )

    def to_dict(self) -> Metadata:
        """Return the fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class ExternalSpec:
    """Where a network came from that was not built here, as a function of the user's or a file."""

    form: Form
    source: str  # package.module:callable, or the path of the file
    slices: int
    classes: int  # output channels; 0 without one prediction that lies on the input
    built: int  # input channels of what the callable makes, before any widening
    answers: str = "logits"  # or "probabilities", "no prediction": found by running it
    init: Init | Literal["unknown"] = "unknown"  # what fix did to its stem
    tie: Tie = "none"
    answer: str | None = None  # which of several outputs is its prediction, as --answer has it
    probe: tuple[int, int] | None = None  # the size (y, x) that it was tried on, if given

    def __post_init__(self) -> None:
        """Raise ``TypeError`` for metadata of another kind."""
        if self.probe is not None:
            object.__setattr__(self, "probe", tuple(self.probe))  # a list in JSON
        numbers = (self.slices, self.classes, self.built, *(self.probe or ()))
        known = (self.form in get_args(Form), self.tie in TIES, self.init in (*INITS, "unknown"))
        if not all(known) or not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError(f"an external network described by {asdict(self)}")

    def to_dict(self) -> Metadata:
        """Return the fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Model:
    """A network that sees slices, with all that belongs to it."""

    module: nn.Module  # float32 (B, S, y, x), normalised, to logits (B, classes, y, x)
    spec: Spec | ExternalSpec  # how to build it again, or where it came from
    normalisation: Normalisation | None = None  # of raw intensities; None before training
    stride: int = 32  # height and width that it takes are multiples of it
    training: Metadata = field(default_factory=dict)  # volume, slices trained on, seed, versions
    scores: Metadata = field(default_factory=dict)  # measured when it was trained
    certificate: Metadata | None = None  # largest response to the reversal, when it was written
    tta: str = "none"  # reversal: it answers as the mean over each window and its reversal
    size: tuple[int, int] | None = None  # the only (y, x) that it takes; None: any
    file: Path | None = None  # that it was read from
    provenance: Metadata = field(default_factory=dict)  # command, seed, versions, hashes

    @property
    def network(self) -> nn.Module:
        """The network itself, without wrappers: the one with the stem and the weights."""
        return plain(self.module)

    @property
    def slices(self) -> int:
        """S, what the network sees at once."""
        return self.spec.slices

    def with_tta(self, tta: str) -> "Model":
        """Return the same network with a test-time augmentation.

        ``reversal``: it answers as the mean over each window and its reversal. ``none``: as it is.
        """
        check_choice("test-time augmentation", tta, TTAS)
        module = self.module.network if isinstance(self.module, Ensemble) else self.module
        if tta == "reversal":
            module = Ensemble(module, self.normalisation).train(module.training)
        return replace(self, module=module, tta=tta)
