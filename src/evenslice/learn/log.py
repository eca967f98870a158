"""The log of a run: a CSV with a row a step, which is the same whether the run was interrupted or not."""

from itertools import takewhile
from pathlib import Path

from evenslice.volume.atomic import fsync, named, written_beside

HEAD = "steps,loss,lr,dice\n"
OFTEN = 50


class Log:
    """Writes rows to a CSV file: ``steps`` done, ``loss``, ``lr`` and, where the validation slices were looked at, ``dice``.

    Parameters
    ----------
    path
        The file.
    done
        Steps done before: rows beyond them, and what is no whole row, are what a killed run had not kept, and are dropped.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        self._rows: list[tuple[int, str, str, str]] = []
        lines = (
            path.read_text(errors="replace").splitlines(keepends=True)[1:] if path.exists() else []
        )
        kept = takewhile(lambda line: _is_whole(line) and int(line.split(",")[0]) <= done, lines)
        with written_beside(path) as part:
            part.write_text(HEAD + "".join(kept))

    def step(self, steps: int, loss: float, lr: float) -> None:
        """Note a step; its row is written with a later one, or by ``look``."""
        if len(self._rows) == OFTEN:
            self._write()
        self._rows.append((steps, f"{loss:.9g}", f"{lr:.9g}", ""))

    def look(self, dice: float | None) -> None:
        """Note what the validation slices gave after the last step, and write all rows."""
        if dice is not None:
            self._rows[-1] = (*self._rows[-1][:3], f"{dice:.9g}")
        self._write()
        fsync(self._path)  # before the state, which says that these steps are done

    def _write(self) -> None:
        with named(self._path), self._path.open("a") as file:
            file.writelines(f"{','.join(map(str, row))}\n" for row in self._rows)
        self._rows.clear()


def _is_whole(line: str) -> bool:
    return (
        line.endswith("\n")
        and line.count(",") == HEAD.count(",")
        and line.partition(",")[0].isdecimal()
    )
