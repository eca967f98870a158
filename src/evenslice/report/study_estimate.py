"""What a study will take, as a table on the terminal."""

from rich.markup import escape
from rich.table import Table

from evenslice.report.terminal import Terminal, say
from evenslice.study.estimate import Estimate

MINUTE, HOUR = 60.0, 3600.0


def print_estimate(found: Estimate) -> None:
    """Print the networks, the data and the time of a study that has not been run."""
    console = Terminal()
    table = Table(title=escape(f"study {found.name}: {found.cells} cells"))
    for name in ("network", "cells", "parameters", "seconds a step", "weights"):
        table.add_column(
            name, justify="right" if name in ("cells", "parameters", "seconds a step") else "left"
        )
    for one in found.networks:
        table.add_row(
            escape(one.network),
            str(one.cells),
            f"{one.parameters / 1e6:.1f} M",
            f"{one.step_seconds:.3g}",
            escape(one.weights),
        )
    console.print(table)
    table = Table("data set", "cells", "voxels (z, y, x)", "state")
    for data in found.data:
        shapes = "; ".join(" x ".join(map(str, shape)) for shape in data.shapes) or "not known"
        table.add_row(
            escape(data.name),
            str(data.cells),
            shapes,
            escape(f"missing: {data.advice}") if data.missing else "here",
        )
    console.print(table)
    long = found.seconds > 2 * HOUR
    time = (
        f"{found.seconds / HOUR:.1f} hours"
        if long
        else f"{max(1, round(found.seconds / MINUTE))} minutes"
    )
    say(f"About {time} in one process on this machine ({found.device}), measured on small steps.")
