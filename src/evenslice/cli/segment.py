"""The command ``evenslice segment``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, ModelName, Traceback, VolumePath, takes
from evenslice.cli.output import (
    check_json,
    files_of,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
)
from evenslice.options import SegmentOptions


@takes(SegmentOptions)
def segment(
    model: ModelName,
    volume: VolumePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="OME-Zarr (.zarr) or a TIFF stack (.tif).")
    ],
    options: SegmentOptions,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    json: Json = None,
    force: Force = False,
    traceback: Traceback = False,
) -> None:
    """Segment a volume of any size, on one machine or several."""
    from evenslice.model.provenance import command_line
    from evenslice.progress import bar
    from evenslice.report.page import page_beside
    from evenslice.report.run_pages import write_segmentation_page
    from evenslice.report.tables import print_segmented
    from evenslice.segmentation.blocks import work_folder
    from evenslice.segmentation.result import segmentation_views
    from evenslice.segmentation.run import segment as run
    from evenslice.volume.atomic import check_writable

    page = page_beside(out)
    again = force or resume or options.shard is not None
    check_json(json, again, *files_of(model), volume, out, page, work_folder(out))
    if page.exists():
        check_writable(page, again)
    warn_of_code(model)
    with stdout_to_stderr():
        result = run(model, volume, out, options, resume=resume, force=force, progress=bar)
    for warning in result.warnings:
        warn(warning)
    if result.complete:
        views = segmentation_views(volume, result, options)
        inputs = {"model": model, "volume": str(volume)}
        write_segmentation_page(page, result, views, inputs, command_line())
    write_json(json, result.to_dict(), again)
    if json != "-":
        print_segmented(result)
