"""The command ``evenslice segment``."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli.options import ModelName, Resume, VolumePath, takes
from evenslice.cli.output import Output, check_inputs, files_of, running_code_of
from evenslice.errors import says_what_is_kept
from evenslice.options import SegmentOptions
from evenslice.progress import report_progress


@takes(SegmentOptions)
def segment(
    model: ModelName,
    volume: VolumePath,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="OME-Zarr (.zarr), a TIFF stack (.tif), NIfTI or NRRD."),
    ],
    options: SegmentOptions,
    output: Output,
    resume: Resume = False,
) -> None:
    """Segment a volume of any size, on one machine or several."""
    with report_progress("loading ...", 0):
        check_inputs(model, volume)
        from evenslice.model.provenance import command_line
        from evenslice.report.page import page_beside
        from evenslice.report.run_pages import write_segmentation_page
        from evenslice.report.tables import print_segmented
        from evenslice.segmentation.blocks import work_folder
        from evenslice.segmentation.result import segmentation_views
        from evenslice.segmentation.run import segment as run

    page = page_beside(out)
    again = output.overwriting(output.force or resume or options.shard is not None)
    again.check(*files_of(model), volume, out, page, work_folder(out))
    if page.exists():
        again.check_new(page)
    with running_code_of(model):
        result = run(
            model, volume, out, options, resume=resume, force=output.force, progress=report_progress
        )
    resumed = f"{out} is complete; the same command with --resume writes its page"
    if result.complete:
        with says_what_is_kept(lambda: resumed), report_progress("drawing", 0):
            views = segmentation_views(volume, result, options)
            inputs = {"model": model, "volume": str(volume)}
            write_segmentation_page(page, result, views, inputs, command_line())
    after = ["evenslice", "evaluate", out, "TRUTH"]
    if result.objects is not None:
        after += ["--as", "instances"]
    wrote, after = ((out, page), after) if result.complete else ((), [])
    again.write(result, print_segmented, *wrote, after=after)
