"""The command ``evenslice segment``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import Force, Json, ModelName, Traceback, VolumePath, takes
from evenslice.cli.output import (
    check_json,
    files_of,
    is_told,
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
    from evenslice.segmentation.run import Segmented
    from evenslice.segmentation.run import segment as run
    from evenslice.segmentation.views import segmentation_looks
    from evenslice.volume.atomic import check_writable

    page = page_beside(out)
    again = force or resume or options.shard is not None
    check_json(json, again, *files_of(model), volume, out, page, out.with_name(out.name + ".run"))
    if page.exists():
        check_writable(page, again)

    def write(result: Segmented) -> None:
        """Write what belongs to the result, before the state of its run is removed."""
        looks = segmentation_looks(volume, result, roi=options.roi, axis=options.axis)
        write_segmentation_page(
            page, result, looks, {"model": model, "volume": str(volume)}, command_line()
        )
        if json != "-":
            write_json(json, result.to_dict(), again)

    warn_of_code(model)
    with stdout_to_stderr():
        result = run(
            model,
            volume,
            out,
            resume=resume,
            force=force,
            told=write,
            progress=bar,
            **options.model_dump(exclude_unset=True),
        )
    for note in result.warnings:
        warn(note)
    found = result.to_dict()
    done = result.plan is None and is_told(
        json, schema=found["schema"], path=found["path"], complete=True
    )
    if json == "-" or not (result.slices or done):  # else it is written
        write_json(json, found, again)
    if json != "-":
        print_segmented(result)
