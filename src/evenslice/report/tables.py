"""What the terminal shows at the end: one summary table each."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from evenslice.evidence.certificate import Certificate
from evenslice.evidence.result import Audit
from evenslice.evidence.stats import Interval
from evenslice.labels.metrics import Scores
from evenslice.report import study_cells, study_words
from evenslice.report.score_rows import number, score_rows
from evenslice.report.terminal import Terminal, say
from evenslice.report.verdict import confidence, sentence, slot_names
from evenslice.segmentation.run import Segmented
from evenslice.verbs.demo import Demo
from evenslice.verbs.inspect import Inspected

PATTERNS = {
    "uniform": "all slots equal",
    "mirror": "slots equal their mirror image",
    "cyclic": "slots repeat R, G, B, as timm and segmentation-models-pytorch widen a stem",
    "none": "slots differ",
    "one": "one slot",
}


def print_demo(demo: Demo) -> None:
    """Print the demo's rows."""
    first = demo.rows[0].audit
    table = Table(
        "init",
        "Dice",
        *slot_names(first.slices),
        "mirror index",
        "verdict",
        title="Share of importance per slot, by gradient",
    )
    for row in demo.rows:
        method = row.audit.methods["gradient"]
        table.add_row(
            row.init,
            number(row.scores.dice),
            *(number(s.value) for s in method.shares),
            interval_words(method.index),
            method.verdict,
        )
    Terminal().print(table)


def print_audit(audit: Audit) -> None:
    """Print an audit: verdict first, then methods and checks."""
    console = Terminal()
    console.print(sentence(audit.to_dict()), highlight=False)
    table = Table("method", *slot_names(audit.slices), "mirror index", "verdict")
    for name, method in audit.methods.items():
        table.add_row(
            name,
            *(number(s.value) for s in method.shares),
            interval_words(method.index),
            method.verdict,
        )
    console.print(table)
    console.print(
        f"{audit.windows} windows of {audit.tile[0]} x {audit.tile[1]} in {audit.clusters} blocks; reversal changes the probability by "
        f"{audit.probability_change:.4f} and flips {audit.flipped_fraction:.2%} of pixels",
        highlight=False,
    )
    if audit.sampling.rule == "sequential":
        end = "decided" if audit.sampling.decided else "not decided; give --windows N for more"
        console.print(
            f"sampled until decided, at most {audit.sampling.looks[-1]} windows: {end}",
            highlight=False,
        )
    for name, found in audit.latin.items():
        shares = "  ".join(number(s.value) for s in found.shares)
        console.print(
            f"latin, {name}: every slice in every slot gives shares {shares}: {found.verdict}",
            highlight=False,
        )
    if audit.lag is not None:
        console.print(
            f"lag of the prediction: {interval_words(audit.lag)} slices (above 0: fits the next slice)",
            highlight=False,
        )
    _print_checks(console, audit)
    if audit.trained_on:
        console.print(
            f"{audit.trained_on} of the windows lie in slices that the model was trained on",
            highlight=False,
        )


def _print_checks(console: Terminal, audit: Audit) -> None:
    """Print a line a control, and whether the audit can be believed."""
    table = Table("control", "value", "", show_edge=False)
    words = {True: "passed", False: "FAILED", None: ""}
    for name, check in audit.checks.items():
        value = "-" if check.value is None else f"{check.value:.3g}"
        word = words[check.passed] if check.value is not None else "not made"
        table.add_row(
            name.replace("_", " "), value, f"{word}{': ' if word else ''}{escape(check.reason)}"
        )
    console.print(table)
    believed = audit.believed
    if believed["passed"]:
        missing = f"; not made: {', '.join(believed['not_made'])}" if believed["not_made"] else ""
        console.print(
            f"This audit can be believed: no control of the instrument failed{missing}",
            highlight=False,
        )
    else:
        console.print(
            f"Do not believe this audit: {', '.join(believed['failed'])} failed", highlight=False
        )


def print_scores(scores: Scores, title: str = "Scores") -> None:
    """Print Dice and IoU, per class where there are several, and boundaries where they were compared; for objects how they agree."""
    head, rows = score_rows(scores)
    table = Table(*head, title=escape(title))
    for row in rows:
        table.add_row(*row)
    Terminal().print(table)


def print_certificate(certificate: Certificate) -> None:
    """Print the largest response to the reversal, in both precisions."""
    say(f"largest response to the reversal: {certificate_words(certificate)}")


def certificate_words(certificate: Certificate) -> str:
    """Write the largest response to the reversal, in both precisions."""
    word = "even" if certificate.symmetric else "not even"
    windows = certificate.random_windows + certificate.real_windows
    double = "" if certificate.float64 is None else f", {certificate.float64:.1e} in float64"
    return f"{certificate.float32:.1e} in float32{double} (relative, {windows} windows): {word}"


def print_inspected(found: Inspected) -> None:
    """Print what a model's stem is, or what was understood of a volume."""
    table = Table(show_header=False)
    about = found.to_dict()
    if found.volume is not None:
        voxel = about["voxel_nm"]
        table.add_row("shape (z, y, x)", " x ".join(map(str, about["shape"])))
        table.add_row("type", about["dtype"])
        table.add_row(
            "voxel size",
            "not stated" if voxel is None else " x ".join(f"{v:g}" for v in voxel) + " nm",
        )
        table.add_row("meaning", about["meaning"])
        values = about["range"]
        table.add_row(
            "middle slice",
            "no finite value" if values is None else f"{values[0]:g} to {values[1]:g}",
        )
        table.add_row("size", f"{about['size_bytes'] / 1e9:.3g} GB uncompressed")
        for name, fact in about["facts"].items():
            table.add_row(escape(name), escape(fact))
        Terminal().print(table)
        return
    spec, norm = about["spec"], about["normalisation"]
    if about["form"] == "evenslice":
        table.add_row(
            "network", escape(f"{spec['arch']} on {spec['encoder']}, {spec['classes']} output(s)")
        )
    else:
        table.add_row(
            "network",
            escape(
                f"{spec['source']} ({about['form']}), {spec['classes']} output(s): {spec['answers']}"
            ),
        )
    if about["library_call"]:
        table.add_row("made by", escape(about["library_call"]))
    size = "" if about["size"] is None else f", {about['size'][0]} x {about['size'][1]} pixels only"
    table.add_row("slices", f"{spec['slices']}{size}")
    table.add_row("stem", f"init {spec['init']}, tie {spec['tie']}")
    for stem in about["stems"]:
        table.add_row(
            escape(stem["module"] or "(the network)"),
            escape(f"{stem['layer']}: {PATTERNS[stem['pattern']]}"),
        )
        table.add_row("", "norm per slot " + "  ".join(f"{n:.3f}" for n in stem["norms"]))
        table.add_row(
            "",
            f"distance from uniform {stem['from_uniform']:.3f}, from mirror {stem['from_mirror']:.3f}",
        )
    scaling = "none yet" if norm is None else f"mean {norm['mean']}, std {norm['std']}"
    if about["tta"] != "none":
        table.add_row("answer", "mean over each window and its reversal (--tta reversal)")
    table.add_row(
        "normalisation",
        scaling if norm is None or norm["uniform"] else f"{scaling}: differs by slot",
    )
    table.add_row(
        "certificate",
        "none"
        if about["certificate"] is None
        else ("even" if about["certificate"]["symmetric"] else "not even"),
    )
    Terminal().print(table)
    if found.certificate is not None:
        print_certificate(found.certificate)


def interval_words(interval: Interval | None) -> str:
    """Write a signed value with its interval; a dash where there is none."""
    if interval is None:
        return "-"
    if interval.low != interval.low:
        return f"{interval.value:+.4f}"
    return f"{interval.value:+.4f} ({interval.low:+.4f}, {interval.high:+.4f})"


def _why_blended(exact_from: int | None) -> str:
    if exact_from is None:
        return "no halo makes this network exact"
    return f"too small to be exact, as tiles of {exact_from} pixels and more are"


def print_segmented(done: Segmented) -> None:
    """Print how a volume was segmented, and where the result is."""
    if not done.complete:
        left = (
            f"{done.blocks_left} of {done.blocks} blocks are"
            if done.blocks_left
            else "what comes after the blocks is"
        )
        say(f"{done.path}: {left} left to other shards")
        return
    table = Table(show_header=False)
    if done.plan is not None:
        cut, settings = done.plan.cut, done.plan.settings
        size = " x ".join(map(str, cut.tile))
        table.add_row(
            "network ran on", f"{size} pixels at a time, {settings.precision}, {settings.device}"
        )
        if cut.overlap:
            table.add_row(
                "tiles", f"blended over {cut.overlap} pixels: {_why_blended(done.plan.exact_from)}"
            )
        elif cut.halo:
            table.add_row("tiles", f"exact, with a halo of {cut.halo} pixels")
        for name, apart in (
            ("tiles to a whole slice", done.plan.tiles_differ),
            ("bf16 to float32", done.plan.bf16_differs),
        ):
            if apart is not None:
                table.add_row(
                    name,
                    f"probabilities differ by at most {apart[0]:.2g}, {apart[1]:.2g} on average (middle slice)",
                )
    if done.blank:
        told = "; ".join(
            f"{n}" + (f" (shown: {', '.join(map(str, used))})" if used else "")
            for n, used in done.blank.items()
        )
        table.add_row("blank sections", told)
    if done.objects is not None:
        table.add_row("objects", str(done.objects))
    if table.row_count:
        Terminal().print(table)
    say(done.path)


def print_study(study: Mapping[str, Any]) -> None:
    """Print a study (schema ``evenslice.study/1``): its claims in sentences, and a line a treatment and network."""
    console = Terminal()
    for claim in study.get("claims") or []:
        console.print(
            f"[bold]{escape(study_words.question(claim))}[/] {study_words.sign(claim).word.capitalize()}.",
            highlight=False,
        )
        console.print(f"  {escape(str(claim.get('sentence') or ''))}", highlight=False)
    if study.get("lean"):
        console.print(_leans(study))
    if told := study_words.progress(study):
        console.print(told, highlight=False)
    for row in study_cells.failures(study):
        what = f"{row.get('network')}, {row.get('treatment')}, {study_cells.cell_name(row)}"
        console.print(
            escape(f"failed: {what}: {row.get('failure') or 'nothing was measured'}"),
            highlight=False,
        )


def _leans(study: Mapping[str, Any]) -> Table:
    """Make a line a treatment and network."""
    lean = study_cells.lean_of(study)
    title = f"Mean mirror index before and after training ({confidence(study)} intervals); Dice, lowest to highest cell"
    table = Table("treatment", "network", "before", "after", "verdicts", "Dice", "n", title=title)
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    rows = study_cells.finished(study)
    one = len({network for _, network, _ in lean} - {"all"}) == 1
    for treatment, network in dict.fromkeys((treatment, network) for treatment, network, _ in lean):
        if one and network == "all":  # says what the line of the one network says
            continue
        before, after = (lean.get((treatment, network, when), {}) for when in ("before", "after"))
        own = [
            r
            for r in rows
            if r.get("treatment") == treatment and network in ("all", r.get("network"))
        ]
        table.add_row(
            escape(treatment),
            escape(network),
            study_words.signed(before.get("value")),
            f"{study_words.signed(after.get('value'))} ({study_words.signed_interval(after.get('low'), after.get('high'))})",
            ", ".join(study_words.lean_badge(found or None).word for found in (before, after)),
            study_words.spread([row.get("dice") for row in own]),
            str(len(own)),
        )
    return table
