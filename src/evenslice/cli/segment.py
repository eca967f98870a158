"""The verb segment on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice.cli import options
from evenslice.cli.output import (
    check_json,
    files_of,
    is_told,
    stdout_to_stderr,
    warn,
    warn_of_code,
    write_json,
)


def segment(
    model: options.ModelName,
    volume: options.VolumePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="OME-Zarr (.zarr) or a TIFF stack (.tif).")
    ],
    output: Annotated[
        options.OutputName,
        typer.Option(
            help="What a TIFF holds: class numbers or objects, or probabilities as uint8."
        ),
    ] = options.OutputName.labels,
    threshold: Annotated[
        float, typer.Option(help="Probability above which a voxel is foreground.")
    ] = 0.5,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile with its halo in pixels; whole slices where they fit if not given."
        ),
    ] = None,
    precision: Annotated[
        options.PrecisionName,
        typer.Option(help="auto is bf16 where the processor has matrix instructions for it."),
    ] = options.PrecisionName.auto,
    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB", help="Memory that may be used; half of what is free if not given."
        ),
    ] = None,
    tta: Annotated[
        options.TtaName | None,
        typer.Option(
            help="Average over each window and its reversal, or not; as the model's record says."
        ),
    ] = None,
    roi: options.Roi = None,
    axis: Annotated[
        options.AxisName, typer.Option(help="Slice along this axis; for isotropic volumes.")
    ] = options.AxisName.z,
    normalisation: Annotated[
        options.StatisticsName,
        typer.Option(help="Normalise by the model's mean and std, or by the volume's own."),
    ] = options.StatisticsName.model,
    instances: Annotated[
        options.InstancesName,
        typer.Option(
            help="Make objects: components of each class, or what predicted boundaries enclose."
        ),
    ] = options.InstancesName.none,
    min_size: Annotated[
        int, typer.Option(metavar="VOXELS", help="Drop objects of fewer voxels.")
    ] = 1,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxel size in nm, where the file does not state it."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers see the same files."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do part I of N; whoever finishes last completes OUT."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")] = False,
    slices: options.Slices = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    json: options.Json = None,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Segment a volume of any size, on one machine or several."""
    from evenslice.model.provenance import command_line
    from evenslice.progress import bar
    from evenslice.report.pages import page_beside
    from evenslice.report.segmentation_page import write_segmentation_page
    from evenslice.report.tables import print_segmented
    from evenslice.segmentation.run import Segmented
    from evenslice.segmentation.run import segment as run
    from evenslice.segmentation.views import segmentation_looks
    from evenslice.volume.atomic import check_writable

    page = page_beside(out)
    again = force or resume or shard is not None
    check_json(json, again, *files_of(model), volume, out, page, out.with_name(out.name + ".run"))
    if page.exists():
        check_writable(page, again)

    def write(result: Segmented) -> None:
        """Write what belongs to the result, before the state of its run is removed."""
        looks = segmentation_looks(volume, result, roi=roi, axis=axis.value)
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
            output=output.value,
            threshold=threshold,
            tile=tile,
            precision=precision.value,
            memory=memory,
            tta=None if tta is None else tta.value,
            roi=roi,
            axis=axis.value,
            normalisation=normalisation.value,
            instances=instances.value,
            min_size=min_size,
            voxel_nm=options.numbers(voxel_size, "--voxel-size"),
            scheduler=scheduler,
            shard=shard,
            resume=resume,
            slices=slices,
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std"),
            seed=seed,
            device=device.value,
            force=force,
            told=write,
            progress=bar,
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
