"""The command ``evenslice demo``."""

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, Traceback, takes
from evenslice.cli.output import check_json, write_json, write_text
from evenslice.options import DemoOptions


@takes(DemoOptions)
def demo(
    options: DemoOptions,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")] = Path(
        "evenslice-demo"
    ),
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Train with an rgb and a green stem on bundled data, audit both, write one page; offline."""
    from evenslice.progress import lines
    from evenslice.volume.atomic import folder_written_beside

    check_json(json, force)
    with folder_written_beside(out, force) as folder:
        print(
            "evenslice demo: a phantom volume, two networks, one difference between them; about "
            "two minutes",
            file=sys.stderr,
        )
        from evenslice.model.provenance import command_line
        from evenslice.report.page import write_demo_page
        from evenslice.report.tables import print_demo, say
        from evenslice.verbs.demo import run_demo

        result = run_demo(folder, options, progress=lines)
        write_text(folder / "demo.json", jsonlib.dumps(result.to_dict(), indent=2) + "\n")
        write_demo_page(folder / "report.html", result, command_line())
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_demo(result)
        say(f"The page: {out / 'report.html'}")
