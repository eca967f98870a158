"""The result of an audit: frozen, and JSON of the schema evenslice.audit/1."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from evenslice.evidence.stats import Interval
from evenslice.evidence.window_view import WindowView
from evenslice.options import JsonObject
from evenslice.volume.normalisation import Normalisation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "evenslice.audit/1"
ABOUT_THE_MODEL = ("uniform_normalisation",)
ELSEWHERE = {"probability_change", "flipped_fraction", "views"}  # in the JSON, or not in it


@dataclass(frozen=True)
class MethodResult:
    """What one method found: an interval per slot, per mirror pair, and for the index.

    The index is None for one slice. ``windows`` and ``blocks`` are how many had any importance.
    """

    shares: tuple[Interval, ...]
    pairs: tuple[Interval, ...]
    index: Interval | None
    verdict: str
    windows: int = 0
    blocks: int = 0

    def to_dict(self) -> JsonObject:
        """Return it as the audit's JSON has it."""
        index = self.index or Interval(math.nan, math.nan, math.nan)
        return {
            **_columns("shares", self.shares),
            **_columns("mirror_pairs", self.pairs),
            "mirror_index": index.value,
            "mirror_low": index.low,
            "mirror_high": index.high,
            "centre_share": self.shares[len(self.shares) // 2].value,
            "verdict": self.verdict,
            "windows": self.windows,
        }


@dataclass(frozen=True)
class Latin:
    """Whether all slots are alike, with every slice in every slot: an interval per slot."""

    shares: tuple[Interval, ...]
    verdict: str

    def to_dict(self) -> JsonObject:
        """Return it as the audit's JSON has it."""
        return {**_columns("shares", self.shares), "verdict": self.verdict}


@dataclass(frozen=True)
class Sampling:
    """How many windows were measured, and why no more."""

    rule: str  # ``fixed``, or ``sequential``: each method until decided, at planned looks
    looks: tuple[int, ...]
    confidence_each: float  # of the intervals of each look; together as that of the audit
    decided: bool | None  # whether the verdict is; None for a fixed number
    skipped: tuple[str, ...] = ()  # expensive methods: the others had found asymmetry already


@dataclass(frozen=True)
class Check:
    """A sanity check of the audit itself.

    ``passed`` is None where the number is for comparison only, or could not be measured; ``reason``
    says which.
    """

    value: float | None
    tolerance: float | None
    passed: bool | None
    reason: str


@dataclass(frozen=True)
class Audit:
    """How much each slot counts, whether previous equals next, and how sure that is.

    ``lag`` is in slices: whether predictions fit the ground truth of the later (above 0) or earlier
    neighbour better; None without labels. ``latin`` says by method whether all slots are alike.
    """

    slices: int  # S
    windows: int  # that counted, by the method that used most
    clusters: int  # blocks that they lie in
    dropped: int  # windows without any importance
    seed: int
    margin: float
    confidence: float
    tile: tuple[int, int]
    stems: tuple[JsonObject, ...]  # module, kind and norm per slot
    normalisation: Normalisation
    methods: dict[str, MethodResult]
    probability_change: float  # response to the reversal: mean absolute change of probability
    flipped_fraction: float  # ... and fraction of pixels whose class flips
    checks: dict[str, Check]
    verdict: str
    trained_on: int | None = None  # windows centred on slices that the model was trained on
    sampling: Sampling = Sampling("fixed", (), 0.95, None)
    design: str = "reversal"  # arrangements that were measured
    region: str = "predicted"  # the number that was explained
    lag: Interval | None = None
    causes: JsonObject | None = None  # of an asymmetry, which the training record leaves possible
    latin: Mapping[str, Latin] = field(default_factory=dict)
    views: tuple[WindowView, ...] = ()  # kept for showing, not part of the JSON
    provenance: JsonObject = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def believed(self) -> JsonObject:
        """Whether the sanity checks passed (``passed``), and which failed or were not made.

        How the model is normalised is a property of the model, not of the audit: it does not count.
        """
        checks = {name: one for name, one in self.checks.items() if name not in ABOUT_THE_MODEL}
        failed = [name for name, check in checks.items() if check.passed is False]
        unmade = [
            name for name, check in checks.items() if check.passed is None and check.value is None
        ]
        return {"passed": not failed, "failed": failed, "not_made": unmade}

    def _repr_html_(self) -> str:
        from evenslice.report.notebook import audit_html

        return audit_html(self)

    def plot(self) -> "Figure":
        """Draw shares and mirror pairs of every method, with intervals: a matplotlib figure."""
        from evenslice.report.notebook import audit_figure

        return audit_figure(self)

    def reaches_beyond(self, limit: float) -> bool:
        """Whether some pair's interval, by any method, reaches beyond +-limit, or is missing."""
        pairs = [pair for method in self.methods.values() for pair in method.pairs]
        return any(not (-limit <= pair.low and pair.high <= limit) for pair in pairs)

    def to_dict(self) -> JsonObject:
        """Return the audit as JSON can hold it (schema evenslice.audit/1); NaN becomes None."""
        norm, lag = self.normalisation, self.lag
        names = [one.name for one in fields(self) if one.name not in ELSEWHERE]
        found: JsonObject = _jsonable(
            {
                "schema": SCHEMA,
                **{name: getattr(self, name) for name in names},
                "normalisation": {
                    "uniform": norm.uniform,
                    "mean": norm.mean[0] if norm.uniform else norm.mean,
                    "std": norm.std[0] if norm.uniform else norm.std,
                    "source": norm.source,
                },
                "methods": {name: method.to_dict() for name, method in self.methods.items()},
                "reversal": {
                    "probability_change": self.probability_change,
                    "flipped_fraction": self.flipped_fraction,
                },
                "lag": lag and {"slices": lag.value, "low": lag.low, "high": lag.high},
                "sampling": asdict(self.sampling),
                "latin": {name: found.to_dict() for name, found in self.latin.items()} or None,
                "checks": {name: asdict(check) for name, check in self.checks.items()},
                "believed": self.believed,
            }
        )
        return found

    def to_json(self) -> str:
        """Return the audit as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def _columns(name: str, intervals: tuple[Interval, ...]) -> dict[str, list[float]]:
    return {
        name: [i.value for i in intervals],
        f"{name}_low": [i.low for i in intervals],
        f"{name}_high": [i.high for i in intervals],
    }


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
