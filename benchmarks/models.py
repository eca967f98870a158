"""Which architecture takes which encoder: builds, runs, trains and reloads every pair.

    python benchmarks/models.py [--doc docs/models.md] [--only NAME] [--arch NAME]

Weights are random; nothing is downloaded. Each pair is built for S = 1, 3, 5 and 9, run on windows
of 50 x 70 to 320 x 192 pixels, through a training step, and to a model file and back
(`tests/model/pairs.py`). The cell says what height and width are padded to: multiples of a number,
or one size only. Takes about an hour on one core; `--only` measures one encoder.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from evenslice.errors import BadInputError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "model"))
from pairs import ARCHS, ENCODERS, check_pair

BEGIN, END = "<!-- pairs: begin -->", "<!-- pairs: end -->"


def cell(arch, encoder):
    start = time.perf_counter()
    try:
        found = check_pair(arch, encoder)
    except BadInputError as error:
        return "-", str(error)
    takes = f"{found.stride}" if found.size is None else f"only {found.size[0]}"
    assert found.reversal < 1e-5, (arch, encoder, found.reversal)
    return takes, f"reversal response {found.reversal:.0e}, {time.perf_counter() - start:.0f} s"


def table(archs, encoders):
    lines = [f"| encoder | {' | '.join(archs)} |", "|---" * (len(archs) + 1) + "|"]
    for encoder in encoders:
        cells = []
        for arch in archs:
            takes, about = cell(arch, encoder)
            cells.append(takes)
            print(f"{arch} {encoder}: {takes} ({about})", file=sys.stderr, flush=True)
        lines.append(f"| {encoder} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--arch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoders = [e for e in ENCODERS if options.only in (None, e)]
    lines = table([a for a in ARCHS if options.arch in (None, a)], encoders)
    print(lines)
    if options.doc:
        text = options.doc.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        options.doc.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}")


if __name__ == "__main__":
    main()
