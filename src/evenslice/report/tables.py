"""What the terminal shows at the end of a command: a table, and lines under it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evenslice.errors import escape_control_chars
from evenslice.options import JsonObject
from evenslice.report import verdict
from evenslice.report.verdict import (
    sanity_checks,
    score_range,
    sentence,
    signed,
    signed_interval,
    slot_names,
)
from evenslice.study.results import ALL, Study
from evenslice.volume.array import sizes

if TYPE_CHECKING:
    from evenslice.data.fetch import FetchedDataset
    from evenslice.data.registry import Dataset
    from evenslice.evidence.certificate import Certificate
    from evenslice.evidence.result import Audit, MethodResult
    from evenslice.evidence.stats import Interval
    from evenslice.labels.metrics import Scores
    from evenslice.model.spec import Model
    from evenslice.segmentation.result import Segmented
    from evenslice.study.estimate import Estimate
    from evenslice.verbs.demo import Demo
    from evenslice.verbs.export import Exported
    from evenslice.verbs.fix import Fixed
    from evenslice.verbs.inspect import Inspected
    from evenslice.volume.array import Volume

HASHES = {"sampled": " of samples", "tree": " of all its files"}
PATTERNS = {
    "uniform": "all slots equal",
    "mirror": "slots equal their mirror image",
    "centre": "the centre alone has weights, as a 2-D network",
    "cyclic": "slots repeat R, G, B, as timm and segmentation-models-pytorch widen a stem",
    "none": "slots differ",
    "one": "one slot",
}
OBJECT_SCORES = {
    "adapted_rand_error": "adapted Rand error",
    "adapted_rand_precision": "  precision (low: merges)",
    "adapted_rand_recall": "  recall (low: splits)",
    "voi_split": "VOI split, H(prediction | ground truth), bits",
    "voi_merge": "VOI merge, H(ground truth | prediction), bits",
    "panoptic_quality": "panoptic quality",
    "dice": "Dice of the foreground",
    "iou": "IoU of the foreground",
}
WORD = len("inconclusive")
SHOWN_LEVELS = ("0.50", "0.75", "0.90")
Rows = list[tuple[str, ...]]


def say(text: object) -> None:
    """Print a line; names of files and metadata cannot command the terminal."""
    print(escape_control_chars(str(text)))


def show(head: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; all text in it is shown as it is."""
    table = Table(*map(_plain, head), title=_plain(title) or None, show_header=any(head))
    texts = [list(map(_plain, row)) for row in rows]
    for place, column in enumerate(table.columns):
        column.overflow = "fold"
        words = " ".join(row[place] for row in texts).split()
        column.min_width = min(WORD, max(map(len, words), default=0))  # a verdict is not cut
    for row in texts:
        table.add_row(*row)
    if table.row_count:
        Console(emoji=False).print(table)


def _plain(text: object) -> str:
    return escape(escape_control_chars(str(text)))


def score(value: float | None) -> str:
    """Write a score with three decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def estimate(found: "Interval | None") -> str:
    """Write a signed value with its interval; a dash where there is none."""
    if found is None:
        return "-"
    if found.low != found.low:
        return f"{found.value:+.4f}"
    return f"{found.value:+.4f} ({found.low:+.4f}, {found.high:+.4f})"


def _voxel(voxel_nm: tuple[float, float, float] | None, between: str = " x ") -> str:
    if voxel_nm is None:
        return "not stated"
    return between.join(f"{side:g}" for side in voxel_nm)


def method_row(name: str, method: "MethodResult") -> tuple[str, ...]:
    """Return one method as a row: its name, shares, mirror index and verdict."""
    shares = (score(share.value) for share in method.shares)
    return (name, *shares, estimate(method.index), method.verdict)


def print_demo(demo: "Demo") -> None:
    """Print the demo's rows."""
    slots = slot_names(demo.rows[0].audit.slices)
    rows = []
    for row in demo.rows:
        gradient, ablation = (row.audit.methods[name] for name in ("gradient", "ablation"))
        shares = (score(share.value) for share in gradient.shares)
        indices = (estimate(method.index) for method in (gradient, ablation))
        rows.append((row.init, score(row.scores.dice), *shares, *indices, row.audit.verdict))
    head = ("init", "Dice", *slots, "mirror index", "by ablation", "verdict")
    show(head, rows, "Share of importance per slot and mirror index, by gradient")


def print_audit(audit: "Audit") -> None:
    """Print an audit: verdict first, then methods and sanity checks."""
    say(sentence(audit))
    if audit.causes is not None:
        say(audit.causes["text"])
    head = ("method", *slot_names(audit.slices), "mirror index", "verdict")
    show(head, [method_row(name, method) for name, method in audit.methods.items()])
    say(
        f"{audit.windows} windows of {audit.tile[0]} x {audit.tile[1]} in {audit.clusters} blocks; "
        f"reversal changes the probability by {audit.probability_change:.4f} "
        f"and flips {audit.flipped_fraction:.2%} of pixels"
    )
    if audit.sampling.rule == "sequential":
        each = ", ".join(f"{name} {method.windows}" for name, method in audit.methods.items())
        say(f"windows by method: {each}")
        end = "decided" if audit.sampling.decided else "not decided; give --windows N for more"
        say(f"sampled until decided, at most {audit.sampling.looks[-1]} windows: {end}")
    if audit.sampling.skipped:
        skipped = ", ".join(audit.sampling.skipped)
        say(f"not measured, for asymmetry was found before: {skipped} (--methods names them)")
    for stem in audit.stems if audit.slices > 1 else ():
        apart = stem.get("asymmetry") or {}
        parts = [f"{key} {', '.join(map(signed, apart[key]))}" for key in apart]
        say(f"stem {stem['module'] or '(the network)'}, mirrored slots apart: {'; '.join(parts)}")
    for name, found in audit.latin.items():
        shares = "  ".join(score(share.value) for share in found.shares)
        say(f"latin, {name}: every slice in every slot gives shares {shares}: {found.verdict}")
    if audit.lag is not None:
        say(f"lag of the prediction: {estimate(audit.lag)} slices (above 0: fits the next slice)")
    states = {True: "passed", False: "FAILED", None: "for comparison"}
    checks = []
    for name, check in audit.checks.items():
        state = "not made" if check.value is None else states[check.passed]
        value = "-" if check.value is None else f"{check.value:.3g}"
        checks.append((name.replace("_", " "), value, state, check.reason))
    show(("sanity check", "value", "", ""), checks)
    say(sanity_checks(audit))
    if audit.trained_on:
        say(f"{audit.trained_on} of the windows lie in slices that the model was trained on")


def print_scores(scores: "Scores", title: str = "Scores") -> None:
    """Print Dice and IoU per class and boundaries where compared; for objects how they agree."""
    show(*score_rows(scores), title)
    if scores.truth_asymmetry is not None:
        say(f"Ground truth: {scores.truth_asymmetry['text']}")
        if scores.truth_asymmetry["verdict"].startswith("asymmetric"):
            say("Scores against labels that lag reward a prediction that lags with them.")


def score_rows(scores: "Scores") -> tuple[tuple[str, ...], Rows]:
    """Return the head and the rows of a table: one per class, or for objects one per score."""
    if scores.matching is None:
        columns = {"Dice": scores.dice, "IoU": scores.iou}
        values: dict[int, list[float | None]] = {
            label: [one["dice"], one["iou"]] for label, one in scores.per_class.items()
        }
        if scores.boundary is not None:
            columns[f"boundary F ({scores.boundary.tolerance:g} px)"] = scores.boundary.mean
            for label, row in values.items():
                row.append(scores.boundary.per_class.get(label))
        lines: Rows = [(str(label), *map(score, row)) for label, row in values.items()]
        if len(lines) != 1:
            lines.append(("mean", *map(score, columns.values())))
        return ("class", *columns), lines
    found = scores.to_dict()
    rows: Rows = [(name, score(found[key])) for key, name in OBJECT_SCORES.items()]
    for level in SHOWN_LEVELS:
        rows.append((f"F1 of objects, IoU above {level}", score(found["matching"][level]["f1"])))
    objects = found["objects"]
    counts = f"{objects['truth']}, {objects['prediction']}"
    rows.append(("objects (ground truth, prediction)", counts))
    return ("score", ""), rows


def certificate_text(certificate: "Certificate") -> str:
    """Write the largest response to the reversal, in both precisions."""
    word = "symmetric" if certificate.symmetric else "asymmetric"
    windows = certificate.random_windows + certificate.real_windows
    double = "" if certificate.float64 is None else f", {certificate.float64:.1e} in float64"
    return f"{certificate.float32:.1e} in float32{double} (relative, {windows} windows): {word}"


def print_inspected(found: "Inspected") -> None:
    """Print a model's stem, or the shape, voxel size and type of a volume that were read."""
    if found.volume is not None:
        show(("", ""), _volume_rows(found.volume, found))
    if found.labels is not None:
        say(found.labels.text)
        for number, one in found.labels.per_class.items():
            say(f"class {number}: {one.text}")
    if found.model is not None:
        show(("", ""), _model_rows(found.model, found))
    if found.certificate is not None:
        say(f"largest response to the reversal: {certificate_text(found.certificate)}")


def _volume_rows(volume: "Volume", found: "Inspected") -> Rows:
    values = found.values
    middle = "no finite value" if values is None else f"{values[0]:g} to {values[1]:g}"
    voxel = _voxel(volume.voxel_nm)
    nbytes = volume.dtype.itemsize * volume.shape[0] * volume.shape[1] * volume.shape[2]
    return [
        ("shape (z, y, x)", sizes(volume.shape)),
        ("type", str(volume.dtype)),
        ("voxel size", voxel if volume.voxel_nm is None else f"{voxel} nm"),
        ("meaning", volume.meaning),
        ("middle slice", middle),
        ("size", f"{nbytes / 1e9:.3g} GB uncompressed"),
        *volume.facts.items(),
        ("read", input_text(found.to_dict()["source"])),
    ]


def _model_rows(model: "Model", found: "Inspected") -> Rows:
    about = found.to_dict()
    spec, norm, call = about["spec"], model.normalisation, about["library_call"]
    network = f"{spec.get('source')} ({about['form']})"
    if about["form"] == "evenslice":
        network = f"{spec['arch']} on {spec['encoder']}"
    answers = f": {spec['answers']}" if "answers" in spec else ""
    answers += f" of {spec['answer']}" if spec.get("answer") else ""
    channels = spec["channels"] if "channels" in spec else spec["built"]
    kinds = {1: "one grey channel", 3: "R, G, B"}
    source = f" from {kinds.get(channels, f'{channels} channels')}"
    source = "" if spec["init"] == "unknown" else source
    size = "" if model.size is None else f", {model.size[0]} x {model.size[1]} pixels only"
    rows: Rows = [
        ("network", f"{network}, {model.spec.classes} output(s){answers}"),
        *([("library call", call)] if call else []),
        ("slices", f"{model.slices}{size}"),
        ("stem", f"init {spec['init']}{source}, tie {spec['tie']}"),
    ]
    for stem in found.stems:
        distances = f"uniform {stem['from_uniform']:.3f}, from mirror {stem['from_mirror']:.3f}"
        rows += [
            (_module(stem), f"{stem['layer']}: {PATTERNS[stem['pattern']]}"),
            ("", f"norm per slot {_norms(stem)}"),
            ("", f"distance from {distances}"),
        ]
    if model.tta != "none":
        rows.append(("answer", "mean over each window and its reversal (--tta reversal)"))
    scaling = "none yet"
    if norm is not None:
        differs = "" if norm.uniform else ": differs by slot"
        scaling = f"mean {list(norm.mean)}, std {list(norm.std)}{differs}"
    rows.append(("normalisation", scaling))
    certified = "none"
    if model.certificate is not None:
        certified = "symmetric" if model.certificate["symmetric"] else "asymmetric"
    weights = [("pretrained weights", input_text(one)) for one in (about["weights"],) if one]
    return [*rows, ("certificate", certified), *weights]


def input_text(record: JsonObject) -> str:
    """Write what was read: its name, size, hash, and where it is from on what terms."""
    parts = [str(record["name"])]
    if record["sha256"] and record["bytes"] is not None:
        how = HASHES.get(record["hashed"], "")
        parts += [f"{record['bytes']:,} bytes", f"SHA-256{how} {record['sha256']}"]
    if "voxels" in record:
        parts.append(f"voxels {record['voxels']}")
    if record.get("terms"):
        parts += [f"from {record['source']}", f"terms: {record['terms']}"]
    if fetched := record.get("fetched"):
        parts += [f"fetched from {fetched['url']}", f"terms: {fetched['terms']}"]
    if weights := record.get("weights"):
        parts.append(f"pretrained weights: {input_text(weights)}")
    return ", ".join(parts)


def _module(stem: JsonObject) -> str:
    return stem["module"] or "(the network)"


def _norms(stem: JsonObject) -> str:
    return "  ".join(f"{norm:.3f}" for norm in stem["norms"])


def print_fixed(fixed: "Fixed") -> None:
    """Print stems and audits before and after, what changed, and the certificate."""
    rows: Rows = [
        (f"{_module(before)}, norm per slot", _norms(before), _norms(after))
        for before, after in zip(fixed.before, fixed.after, strict=True)
    ]
    if fixed.audits is not None:
        rows += _audit_rows(fixed.audits)
    rows += _change_rows(fixed.change or {})
    rows.append(("largest response to the reversal", "", certificate_text(fixed.certificate)))
    what = "The stem" if fixed.model.tta == "none" else "The output"
    show(("", "before", "after"), rows, f"{what} made symmetric")


def _audit_rows(audits: "Sequence[Audit]") -> Rows:
    """Compare two audits: shares and index by their one method, verdict, response, checks."""
    name = next(iter(audits[0].methods))
    methods = [audit.methods[name] for audit in audits]
    shares = ("  ".join(score(share.value) for share in method.shares) for method in methods)
    changes = (f"{audit.probability_change:.4f}" for audit in audits)
    failed = (", ".join(audit.believed["failed"]) or "none" for audit in audits)
    return [
        (f"shares by {name}", *shares),
        ("mirror index", *(estimate(method.index) for method in methods)),
        ("verdict", *(audit.verdict for audit in audits)),
        ("reversal changes the probability by", *changes),
        ("sanity checks that failed", *failed),
    ]


def _change_rows(change: JsonObject) -> Rows:
    """Say how far the output moved, and what that did to Dice; what was not measured has no row."""
    rows: Rows = []
    dice = [change.get(f"dice_{when}") for when in ("before", "after")]
    if dice != [None, None]:
        rows.append(("Dice on the windows", *map(score, dice)))
    for key, name in (
        ("probability_change", "the fix changes the probability by"),
        ("normalisation_change", "of that by one mean and std for all slots"),
    ):
        if change.get(key) is not None:
            rows.append((name, "", f"{change[key]:.4f}"))
    if change.get("batch_norms"):
        rows.append(("BatchNorm statistics recalibrated", "", str(change["batch_norms"])))
    return rows


def print_segmented(done: "Segmented") -> None:
    """Print how a volume was segmented."""
    if not done.complete:
        left = "what comes after the blocks is"
        if done.blocks_left:
            left = f"{done.blocks_left} of {done.blocks} blocks are"
        say(f"{done.path}: {left} left to other shards")
        return
    rows = _plan_rows(done)
    if done.blank:
        shown = {n: ", ".join(map(str, used)) for n, used in done.blank.items()}
        blank = (f"{n} (shown: {used})" if used else str(n) for n, used in shown.items())
        rows.append(("blank sections", "; ".join(blank)))
    if done.objects is not None:
        rows.append(("objects", str(done.objects)))
    show(("", ""), rows)


def _plan_rows(done: "Segmented") -> Rows:
    plan = done.plan
    if plan is None:
        return []
    cut, settings = plan.cut, plan.settings
    size = " x ".join(map(str, cut.tile))
    run = f"{size} pixels at a time, {settings.precision}, {settings.device}"
    rows: Rows = [("network ran on", run)]
    if cut.overlap:
        why = "no halo makes this network exact"
        if plan.exact_from is not None:
            why = f"too small to be exact, as tiles of {plan.exact_from} pixels and more are"
        rows.append(("tiles", f"blended over {cut.overlap} pixels: {why}"))
    elif cut.halo:
        rows.append(("tiles", f"exact, with a halo of {cut.halo} pixels"))
    for name, differs in (
        ("tiles to a whole slice", plan.tiles_differ),
        ("bf16 to float32", plan.bf16_differs),
    ):
        if differs is not None:
            most, mean = differs
            text = f"probabilities differ by at most {most:.2g}, {mean:.2g} on average"
            rows.append((name, f"{text} (middle slice)"))
    return rows


def print_exported(result: "Exported") -> None:
    """Print what was written, how far it is from torch, and its certificate."""
    about = result.to_dict()
    batch, slices, height, width = result.shape
    many = "any batch" if batch is None else f"a batch of {batch}"
    sides = "any size" if result.step == 1 else f"any multiple of {result.step} pixels"
    if height is not None:
        sides = f"{height} x {width} pixels"
    opset = "" if result.opset is None else f", ONNX opset {result.opset}"
    mean = ", the mean over both directions" if result.tta == "reversal" else ""
    apart = f"{result.difference:.2g} of the largest logit (limit {about['tolerance']:g})"
    rows = [
        ("format", f"{result.format}{opset}"),
        ("input", f"{many}, {slices} slices, {sides}"),
        ("answers", f"{about['answers']}{mean}"),
        ("largest difference from torch", apart),
        ("size", f"{about['bytes'] / 2**20:.1f} MiB"),
    ]
    show(("", str(result.path)), rows, "Exported")
    say(f"largest response to the reversal: {certificate_text(result.certificate)}")


def print_datasets(known: "Sequence[Dataset]", parent: Path) -> None:
    """Print all public datasets, and which of them are there."""
    rows = []
    for one in known:
        missing = one.missing(parent / one.folder)
        there = "yes" if not missing else "no" if len(missing) == len(one.files) else "in part"
        voxel = _voxel(one.voxel_nm, ", ")
        rows.append((one.name, sizes(one.shape), voxel, one.target, one.terms, there))
    head = ("name", "z x y x x", "voxel nm", "target", "terms", "there")
    show(head, rows, "Public datasets")
    say(f"They are looked for in {parent} ($EVENSLICE_DATA).")


def print_fetched(fetched: "FetchedDataset") -> None:
    """Print what a dataset is, how it is split, on what terms, and what to do with it."""
    known, record = fetched.dataset, fetched.record
    state = f"is in {fetched.folder} already (--force fetches it again)"
    if fetched.fresh:
        state = f"was fetched into {fetched.folder}"
    say(f"{known.name} {state}: {known.title}")
    for part in known.volumes:
        span = "" if part.span is None else f", slices {part.span[0]}:{part.span[1]}"
        say(f"  {part.role}: {part.raw}, labels {part.labels}{span}")
    facts = {
        "split": known.split,
        "voxel nm (z, y, x)": _voxel(known.voxel_nm, ", "),
        "labels are": known.target,
        "terms": known.terms,
        "please cite": f"{known.citation} (doi {known.doi})",
        "remarks": known.notes,
        "from": "" if record is None else record.url,
        "sha256": "" if record is None else f"{record.sha256} {record.sha256_is}",
    }
    for name, value in facts.items():
        if value:
            say(f"  {name}: {value}")
    for line in () if record is None else record.compared:
        say(f"  {line}")


def print_study(study: Study) -> None:
    """Print a study: its claims in sentences, and a line per treatment and network."""
    for claim in study.claims:
        word = verdict.claim_badge(claim).word.capitalize()
        say(f"{verdict.QUESTIONS[claim.name]} {word}.")
        say(f"  {claim.sentence}")
    _print_pooled(study)
    for dataset, text in study.labels.items():
        say(f"{dataset}: {text}")
    _print_causes(study)
    if text := verdict.progress(study):
        say(text)
    for cell in study.failures:
        reason = cell.failure or "nothing was measured"
        say(f"failed: {cell.network}, {cell.treatment}, {cell.name}: {reason}")


def _print_pooled(study: Study) -> None:
    """Print a line per treatment and network; ``all`` only where there are several networks."""
    pairs, rows = study.pooled_pairs(), []
    one_network = len({after.network for _, after in pairs} - {ALL}) == 1
    for before, after in pairs:
        name, network = after.treatment, after.network
        if one_network and network == ALL:
            continue
        own = [one for one in study.finished if one.treatment == name]
        dice = [one.dice for one in own if network in (ALL, one.network)]
        ends = f"{signed(after.value)} ({signed_interval(after.low, after.high)})"
        words = ", ".join(verdict.pooled_badge(found).word for found in (before, after))
        values = (signed(before.value), ends, words, score_range(dice), len(dice))
        rows.append((name, network, *values))
    title = (
        "Mean mirror index before and after training "
        f"({verdict.confidence(study.confidence)} intervals); Dice, lowest to highest cell"
    )
    show(("treatment", "network", "before", "after", "verdicts", "Dice", "n"), rows, title)


def _print_causes(study: Study) -> None:
    """Print what of the mirror index comes from the data, and what stays with the slots."""
    rows = []
    for one in study.causes:
        parts = (
            f"{signed(part.value)} ({signed_interval(part.low, part.high)})"
            for part in (one.data, one.slots)
        )
        names = one.method, one.treatment, one.network, one.dataset
        rows.append((*names, *parts, score(one.spread), one.seeds))
    columns = ["method", "treatment", "network", "dataset", "data", "slots", "spread", "seeds"]
    show(columns, rows, "Mirror index: its part from the data, and that which stays with the slots")


def print_estimate(found: "Estimate") -> None:
    """Print the networks, the data and the time of a study that has not been run."""
    networks = []
    for net in found.networks:
        size, seconds = f"{net.parameters / 1e6:.1f} M", f"{net.step_seconds:.3g}"
        networks.append((net.network, net.cells, size, seconds, net.weights))
    head = ("network", "cells", "parameters", "seconds per step", "weights")
    show(head, networks, f"study {found.name}: {found.cells} cells")
    data = []
    for one in found.data:
        shapes = "; ".join(map(sizes, one.shapes)) or "not known"
        state = f"missing: {one.advice}" if one.missing else "here"
        data.append((one.name, one.cells, shapes, state))
    show(("dataset", "cells", "voxels (z, y, x)", "state"), data)
    hours = found.seconds / 3600
    time = f"{hours:.1f} hours" if hours > 2 else f"{max(1, round(60 * hours))} minutes"
    say(f"About {time} in one process on this machine ({found.device}), measured on small steps.")
