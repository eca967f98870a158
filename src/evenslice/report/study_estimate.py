"""What a study will take, as a table on the terminal."""

from rich.console import Console
from rich.table import Table

from evenslice.verbs.study_estimate import Estimate

MINUTE, HOUR = 60.0, 3600.0


def print_estimate(found: Estimate) -> None:
    """Print the networks, the data and the time of a study that has not been run."""
    console = Console(width=None)
    table = Table(title=f"study {found.name}: {found.cells} cells")
    for name in ("network", "cells", "parameters", "seconds a step", "weights"):
        table.add_column(name, justify="right" if name in ("cells", "parameters", "seconds a step") else "left")
    for one in found.networks:
        table.add_row(
            one.network, str(one.cells), f"{one.parameters / 1e6:.1f} M", f"{one.step_seconds:.3g}", one.weights
        )
    console.print(table)
    table = Table("data set", "cells", "voxels (z, y, x)", "state")
    for data in found.data:
        shapes = "; ".join(" x ".join(map(str, shape)) for shape in data.shapes) or "not known"
        table.add_row(data.name, str(data.cells), shapes, f"missing: {data.advice}" if data.missing else "here")
    console.print(table)
    long = found.seconds > 2 * HOUR
    time = f"{found.seconds / HOUR:.1f} hours" if long else f"{max(1, round(found.seconds / MINUTE))} minutes"
    print(f"About {time} in one process on this machine ({found.device}), measured on small steps.")
