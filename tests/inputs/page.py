"""The page docs/inputs.md, made from the cases: python tests/inputs/page.py > docs/inputs.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from inputs import hdf5, images, mrc, raw, zarr_stores
from inputs.case import Case

MODULES = (images, hdf5, mrc, zarr_stores, raw)
CASES = [case for module in MODULES for case in module.CASES]
HEAD = """# What is read from a file

Each row is a test (`tests/inputs`). A warning is one line; a refusal is one line and exit code 2.
A voxel size that a file does not state, or states in a way that contradicts itself, is "not
stated": `--voxel-size` states it.
"""


def page(cases: list[Case]) -> str:
    """Write the cases as one table for each format."""
    lines = [HEAD]
    for name in dict.fromkeys(case.format for case in cases):
        lines += [f"## {name}", "", "| in the file | what is made of it |", "|---|---|"]
        lines += [f"| {case.found} | {case.answer} |" for case in cases if case.format == name]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(CASES), end="")
