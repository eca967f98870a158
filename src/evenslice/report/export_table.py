"""What export wrote, as the terminal shows it."""

import shlex

from rich.markup import escape
from rich.table import Table

from evenslice.report.tables import print_certificate
from evenslice.report.terminal import Terminal, say
from evenslice.verbs.export import Exported

NEXT = {
    "onnx": "evenslice audit {path} VOLUME",
    "torch-export": "evenslice audit {path} VOLUME",
    "bioimageio": "bioimageio test {path}",
}


def print_exported(result: Exported) -> None:
    """Print what was written, how far it is from torch, and its certificate."""
    about = result.to_dict()
    rows = {
        "format": result.format + ("" if result.opset is None else f", ONNX opset {result.opset}"),
        "input": _input(result),
        "answers": about["answers"]
        + (", the mean over both directions" if result.tta == "reversal" else ""),
        "largest difference from torch": f"{result.difference:.2g} of the largest logit (limit {about['tolerance']:g})",
        "size": f"{about['bytes'] / 2**20:.1f} MiB",
    }
    table = Table("", escape(str(result.path)), title="Exported")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    Terminal().print(table)
    print_certificate(result.certificate)
    say(f"Next: {NEXT[result.format].format(path=shlex.quote(str(result.path)))}")


def _input(result: Exported) -> str:
    batch, slices, height, width = result.shape
    many = "any batch" if batch is None else f"a batch of {batch}"
    if height is not None:
        sides = f"{height} x {width} pixels"
    else:
        sides = "any size" if result.step == 1 else f"any multiple of {result.step} pixels"
    return f"{many}, {slices} slices, {sides}"
