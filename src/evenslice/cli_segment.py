"""The verb segment on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from evenslice import cli_options as options
from evenslice.cli_writing import warn, warn_of_code


def segment(
    model: options.ModelName,
    volume: options.VolumePath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A TIFF stack (.tif).")],
    output: Annotated[
        options.OutputName, typer.Option(help="Class numbers, or probabilities as uint8.")
    ] = options.OutputName.labels,
    threshold: Annotated[float, typer.Option(help="Probability above which a voxel is foreground.")] = 0.5,
    tile: Annotated[int | None, typer.Option(help="Side of a tile with its halo in pixels.")] = None,
    tta: Annotated[
        options.TtaName | None,
        typer.Option(help="Average over each window and its reversal, or not; as the model's record says."),
    ] = None,
    roi: options.Roi = None,
    device: options.Device = options.DeviceName.auto,
    force: options.Force = False,
    traceback: options.Traceback = False,
) -> None:
    """Segment a whole volume, slice by slice."""
    from evenslice.model.streaming import HALO
    from evenslice.progress import bar
    from evenslice.verbs.segment import segment as run

    warn_of_code(model)
    run(
        model,
        volume,
        out,
        output=output.value,
        threshold=threshold,
        tile=tile,
        tta=None if tta is None else tta.value,
        roi=roi,
        device=device.value,
        force=force,
        progress=bar,
    )
    if tile is not None and tile < 4 * HALO:
        warn(f"tiles under {4 * HALO} pixels have a halo of {tile // 4} and may differ at their seams")
    print(out)
