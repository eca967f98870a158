"""How often intervals and verdicts of an audit are right: the tables of docs/statistics.md.

    python benchmarks/coverage.py [--runs 1000] [--doc docs/statistics.md]

Windows are simulated as shares, and go through the functions of the audit. The pair of a window is
the true pair plus an effect of its block and one of its own, of equal variance (intra-cluster
correlation 0.5), each normal or skewed; the outer slots hold a share that varies from window to
window. About ten minutes on one core.
"""

import argparse
from pathlib import Path

import numpy as np

from evenslice.evidence.stats import LOOKS, confidence_each, is_decided
from evenslice.evidence.summary import method_result

# standard deviation of the pairs of windows: about that of ablation on ISBI 2012
SPREAD = 0.08
SHAPES = {"normal": None, "skewness 1.4 (gamma, shape 2)": 2.0, "skewness 2 (exponential)": 1.0}
MARGIN, CONFIDENCE = 0.05, 0.95


def effects(rng, shape, size):
    """Draw effects of mean 0 and variance 1."""
    if shape is None:
        return rng.normal(size=size)
    return (rng.gamma(shape, size=size) - shape) / np.sqrt(shape)


def importance(rng, true, blocks, each, shape, spread=SPREAD, correlation=0.5):
    """Simulate importance (windows, 1, 3) with a true mirror pair, and the block of each window."""
    own, shared = effects(rng, shape, (blocks, each)), effects(rng, shape, (blocks, 1))
    pair = np.clip(
        true + spread * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own), -1, 1
    ).ravel()
    outer = np.clip(rng.gamma(20, 0.02, pair.shape), 0.05, 0.95)
    shares = np.stack([outer * (1 - pair) / 2, 1 - outer, outer * (1 + pair) / 2], axis=1)
    return shares[:, None], np.repeat(np.arange(blocks), each)


def fixed(runs, blocks, shape, true=MARGIN, each=3, seed=0):
    """Return how often a fixed number of windows covers the true pair, and false verdicts."""
    rng = np.random.default_rng(seed)
    covered = symmetric = asymmetric = 0
    for run in range(runs):
        found = method_result(*importance(rng, true, blocks, each, shape), MARGIN, CONFIDENCE, run)
        covered += found.pairs[0].low <= true <= found.pairs[0].high
        symmetric += found.verdict == "symmetric"
        asymmetric += found.verdict == "asymmetric"
    return covered / runs, symmetric / runs, asymmetric / runs


def sequential(runs, true, shape, spread=SPREAD, seed=1):
    """Return coverage when stopped, verdicts, decided within 64, and windows on average."""
    rng, each = np.random.default_rng(seed), confidence_each(CONFIDENCE, len(LOOKS))
    covered, used, verdicts = 0, 0, {"symmetric": 0, "asymmetric": 0}
    for run in range(runs):
        values, blocks = importance(rng, true, LOOKS[-1], 1, shape, spread)
        for look in LOOKS:
            found = method_result(values[:look], blocks[:look], MARGIN, each, run)
            if is_decided(found.verdict):
                break
        covered += found.pairs[0].low <= true <= found.pairs[0].high
        used += look
        if found.verdict in verdicts:
            verdicts[found.verdict] += 1
    share = {name: count / runs for name, count in verdicts.items()}
    return covered / runs, share, sum(share.values()), used / runs


def tables(runs):
    """Yield the lines of both tables."""
    yield (
        "| blocks | effects | 95 % interval covers | false `symmetric` at the margin "
        "| false `asymmetric` at the margin |"
    )
    yield "|---|---|---|---|---|"
    for blocks in (12, 20, 40):
        for name, shape in SHAPES.items():
            covered, symmetric, asymmetric = fixed(runs, blocks, shape)
            yield f"| {blocks} | {name} | {covered:.1%} | {symmetric:.1%} | {asymmetric:.1%} |"
    yield ""
    yield (
        "| true pair | effects | covered when stopped | `symmetric` | `asymmetric` "
        "| decided within 64 | windows on average |"
    )
    yield "|---|---|---|---|---|---|---|"
    for true in (0.0, 0.05, -0.05, 0.165):
        for name, shape in SHAPES.items():
            covered, share, decided, used = sequential(runs, true, shape)
            yield (
                f"| {true:+.3f} | {name} | {covered:.1%} | {share['symmetric']:.1%} | "
                f"{share['asymmetric']:.1%} | {decided:.1%} | "
                f"{used:.0f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--doc", type=Path)
    given = parser.parse_args()
    lines = []
    for line in tables(given.runs):
        print(line, flush=True)
        lines.append(line)
    if given.doc is not None:
        before, _, rest = given.doc.read_text().partition("<!-- tables -->\n")
        _, _, after = rest.partition("<!-- end of tables -->")
        text = "\n".join([f"{given.runs} runs each.", "", *lines, ""])
        given.doc.write_text(f"{before}<!-- tables -->\n{text}<!-- end of tables -->{after}")


if __name__ == "__main__":
    main()
