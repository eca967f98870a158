"""What a model is: all that is needed to rebuild it, and the model itself."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.logits import Ensemble, plain
from evenslice.model.stem.adapt import INITS, TIES
from evenslice.options import Init, JsonObject, Tie
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.windows import check_slices

Metadata: TypeAlias = JsonObject  # a JSON object, as a model file holds it
Form = Literal["callable", "torch-export", "onnx"]
TTAS = ("none", "reversal")
FORBIDDEN = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


@dataclass(frozen=True)
class Spec:
    """How to build a network.

    Attributes
    ----------
    arch
        Architecture of segmentation-models-pytorch in lower case, such as ``unet``, ``dpt``.
    encoder
        A timm name, or ``smp:NAME`` for one of segmentation-models-pytorch's own.
    encoder_depth
        Stages of the encoder, or None for the architecture's default.
    slices
        S, what the network sees at once.
    classes
        Output channels: 1 for foreground, else the number of classes with background.
    init, tie
        How the stem got its slots, and the constraint kept in training.
    options
        Facts about the encoder, such as ``{"pad_type": "same"}``.
    """

    arch: str = "unet"
    encoder: str = "resnet18"
    encoder_depth: int | None = None
    slices: int = 3
    classes: int = 1
    init: Init = "green"
    tie: Tie = "none"
    options: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ``BadInputError`` for what cannot be built."""
        check_slices(self.slices)
        if self.init not in INITS:
            raise BadInputError(
                f"the init {self.init!r} is unknown, expected one of {', '.join(INITS)}; choose one"
            )
        if self.tie not in TIES:
            raise BadInputError(
                f"the tie {self.tie!r} is unknown, expected one of {', '.join(TIES)}; choose one"
            )
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
    """Where a network came from that was not built here.

    Attributes
    ----------
    form
        ``callable``: made by a function of the user's. ``torch-export``, ``onnx``: a file.
    source
        ``package.module:callable``, or the path of the file.
    slices
        S, what the network sees at once.
    classes
        Output channels; 0 if the output cannot be laid over the input.
    built
        Input channels of what the callable makes, before any widening.
    answers
        ``logits``, ``probabilities`` or ``no prediction``, as found by running it.
    init, tie
        What ``fix`` did to its stem, ``unknown`` before.
    answer
        Which of several outputs is its prediction: a name or number, behind a colon the channel.
    probe
        The size (y, x) that it was tried on, where that was given.
    """

    form: Form
    source: str
    slices: int
    classes: int
    built: int
    answers: str = "logits"
    init: Init | Literal["unknown"] = "unknown"
    tie: Tie = "none"
    answer: str | None = None
    probe: tuple[int, int] | None = None

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
    """A network that sees slices, with all that belongs to it.

    Attributes
    ----------
    module
        The network: float32 (B, S, y, x), normalised, to logits (B, classes, y, x).
    spec
        How to build it again, or where it came from.
    normalisation
        Raw intensities to what the network expects, or None before training.
    stride
        Height and width that the network takes are multiples of this.
    training
        Provenance: volume, slices trained on, seed, steps, versions.
    scores
        What was measured when it was trained.
    certificate
        The largest response to the reversal that was measured when it was written, or None.
    tta
        ``reversal`` if the answer is the mean over each window and its reversal, else ``none``.
    size
        The only (y, x) that the network takes, or None for any.
    file
        The file it was read from, or None.
    provenance
        What its file says of how that was made: command, seed, versions, hashes of what was read.
    """

    module: nn.Module
    spec: Spec | ExternalSpec
    normalisation: Normalisation | None = None
    stride: int = 32
    training: Metadata = field(default_factory=dict)
    scores: Metadata = field(default_factory=dict)
    certificate: Metadata | None = None
    tta: str = "none"
    size: tuple[int, int] | None = None
    file: Path | None = None
    provenance: Metadata = field(default_factory=dict)

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
        if tta not in TTAS:
            raise BadInputError(
                f"the test-time augmentation {tta!r} is unknown, expected one of "
                f"{', '.join(TTAS)}; choose one"
            )
        module = self.module.network if isinstance(self.module, Ensemble) else self.module
        if tta == "reversal":
            module = Ensemble(module, self.normalisation).train(module.training)
        return replace(self, module=module, tta=tta)
