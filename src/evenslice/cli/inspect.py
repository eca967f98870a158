"""The command ``evenslice inspect``."""

from typing import Annotated

import typer

from evenslice.cli.options import FAILED_CHECK, Force, Json, Traceback, takes
from evenslice.cli.output import check_json, files_of, stdout_to_stderr, warn_of_code, write_json
from evenslice.options import InspectOptions


@takes(InspectOptions)
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|VOLUME", help="A model in any form, or a volume.")
    ],
    options: InspectOptions,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> int:
    """Show a model's stem, or the shape, voxel size and type of a volume."""
    from evenslice.progress import bar
    from evenslice.report.tables import print_inspected
    from evenslice.verbs.inspect import inspect as run

    check_json(json, force, *files_of(source))
    warn_of_code(source)
    with stdout_to_stderr():
        result = run(source, options, progress=bar)
    write_json(json, result.to_dict(), force)
    if json != "-":
        print_inspected(result)
    failed = result.certificate is not None and not result.certificate.symmetric
    return FAILED_CHECK if failed else 0
