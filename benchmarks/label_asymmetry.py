"""Does the asymmetry of labels come back? The tables of docs/labels.md.

    python benchmarks/label_asymmetry.py [--volumes 24] [--runs 300] [--doc docs/labels.md]

Second table: phantoms sliced four times as finely as their raw slices, with the labels of a place
some quarters of a slice earlier, or with some of the sections labelled as the one before. First:
noise that is smooth in all directions, thresholded, with copied labels; and labels of another
volume. About ten minutes on one core.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from evenslice.data.phantom import phantom
from evenslice.evidence.label_asymmetry import LABEL_MARGIN, label_asymmetry
from evenslice.labels.targets import Target
from evenslice.volume.array import Volume

FINE, DEPTH, SIDE = 4, 28, 128
TARGET = Target("foreground", 1)
VERDICTS = ("symmetric", "asymmetric toward previous", "asymmetric toward next", "inconclusive")


def copied(labels, fraction, rng):
    """Return the labels (z, y, x) with a fraction of the slices labelled as the one before."""
    chosen = rng.random(len(labels)) < fraction
    source = np.arange(len(labels)) - chosen
    return labels[np.maximum(source, 0)]


def phantoms(volumes):
    """Yield target, kind, true lag and result."""
    for seed in range(volumes):
        made = phantom((DEPTH * FINE, SIDE, SIDE), seed, (50 / FINE, 4.0, 4.0))
        raw = Volume(made.raw[::FINE])
        for name in ("membranes", "mitochondria"):
            fine = getattr(made, name)
            for quarters in range(FINE + 1):
                lagging = fine[np.maximum(np.arange(0, DEPTH * FINE, FINE) - quarters, 0)]
                rng = np.random.default_rng([seed, quarters])
                some = copied(fine[::FINE], quarters / FINE, rng)
                for kind, labels in (("shifted", lagging), ("copied", some)):
                    if kind == "shifted" or 0 < quarters < FINE:
                        found = label_asymmetry(raw, Volume(labels), TARGET)
                        yield name, kind, 0 - quarters / FINE, found


def textures(runs):
    """Yield kind, true lag and result."""
    for run in range(runs):
        rng = np.random.default_rng([1, run])
        fine = gaussian_filter(rng.normal(size=(2, 64, 64, 64)), (0, 1, 3, 3))
        raw = Volume(fine[0] / fine[0].std() + 0.5 * rng.normal(size=fine[0].shape))
        for fraction in (0.0, LABEL_MARGIN, 0.3):
            labels = copied((fine[0] > fine.std() / 2).astype(np.uint8), fraction, rng)
            yield "copied", 0.0 - fraction, label_asymmetry(raw, Volume(labels), TARGET)
        other = (fine[1] > fine.std() / 2).astype(np.uint8)
        yield "of other tissue", 0.0, label_asymmetry(raw, Volume(other), TARGET)


def row(names, true, found):
    """Write one line of a table."""
    known = [one.asymmetry for one in found if one.asymmetry is not None]
    values = np.array([(one.value, one.low, one.high) for one in known])
    cells = [*names, f"{true:+.2f}", f"{len(known)} of {len(found)}"]
    if len(known) < 2:
        cells += ["-"] * 3
    else:
        cover = np.mean((values[:, 1] <= true) & (true <= values[:, 2]))
        cells += [f"{values[:, 0].mean():+.3f}", f"{values[:, 0].std(ddof=1):.3f}", f"{cover:.0%}"]
    counts = Counter(one.verdict for one in found)
    cells += [f"{counts[verdict] / len(found):.0%}" for verdict in VERDICTS]
    return f"| {' | '.join(cells)} |"


def table(names, results):
    """Yield the lines of a table; the results end with the true lag and what was found."""
    columns = (*names, "true lag", "measured", "mean", "std", "95 % interval covers", *VERDICTS)
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    rows = defaultdict(list)
    for *key, found in results:
        rows[tuple(key)].append(found)
    for key in sorted(rows, key=lambda key: (*key[:-1], -key[-1])):
        yield row(key[:-1], key[-1], rows[key])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=24)
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--doc", type=Path)
    given = parser.parse_args()
    lines = [*table(("labels",), textures(given.runs)), ""]
    lines += table(("target", "labels"), phantoms(given.volumes))
    print("\n".join(lines))
    if given.doc is not None:
        before, _, rest = given.doc.read_text().partition("<!-- tables -->\n")
        _, _, after = rest.partition("<!-- end of tables -->")
        text = "\n".join([*lines, ""])
        given.doc.write_text(f"{before}<!-- tables -->\n{text}<!-- end of tables -->{after}")


if __name__ == "__main__":
    main()
