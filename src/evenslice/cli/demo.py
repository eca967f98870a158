"""The command ``evenslice demo``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import takes
from evenslice.cli.output import Output, write_text
from evenslice.options import DemoOptions
from evenslice.progress import report_progress

ANNOUNCED = "evenslice demo: a phantom, three networks, one difference; about three minutes"


@takes(DemoOptions)
def demo(
    options: DemoOptions,
    output: Output,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")] = Path(
        "evenslice-demo"
    ),
) -> None:
    """Train three inits of the stem on a phantom, audit them, write one page; offline."""
    from evenslice.volume.atomic import folder_written_beside

    output.check()
    with folder_written_beside(out, output.force) as folder:
        print(ANNOUNCED, file=sys.stderr)
        with report_progress("loading ...", 0):
            from evenslice.model.provenance import command_line
            from evenslice.report.page import write_demo_page
            from evenslice.report.tables import print_demo
            from evenslice.verbs.demo import run_demo

        result = run_demo(folder, options, progress=report_progress)
        write_text(folder / "demo.json", json.dumps(result.to_dict(), indent=2) + "\n")
        write_demo_page(folder / "report.html", result, command_line())
    after = ["evenslice", "audit", out / "rgb.safetensors", out / "phantom.tif", "--out", "audit"]
    output.write(result, print_demo, out / "report.html", out / "demo.json", after=after)
