"""The settings file of ``evenslice train``: a recipe as TOML, and more volumes to train on."""

from pathlib import Path
from typing import Any

from pydantic import Field

from evenslice.learn.recipe import Recipe
from evenslice.learn.settings import OPTIONS, Settings, read_toml

NAMED_WEIGHTS = ("imagenet", "bundled", "none")


class More(Settings):
    """Another volume to train on, with its labels."""

    volume: str
    labels: str


class TrainFile(Recipe):
    """A settings file: the fields of ``Recipe``, and ``[[more]]``.

    Attributes
    ----------
    more
        Volumes beside the one on the command line.
    """

    more: list[More] = Field(default_factory=list)

    def __init__(self, source: str = OPTIONS, /, **values: Any) -> None:
        """Refuse what ``Recipe`` refuses."""
        super().__init__(source, **values)

    def recipe(self, **given: Any) -> Recipe:
        """Return the recipe of the file, apart from what was ``given`` as options."""
        return Recipe(**(self.model_dump(exclude={"more"}, exclude_unset=True) | given))


def read_config(path: Path) -> TrainFile:
    """Read a settings file; relative paths in it are meant from its folder, and come back so.

    Raises
    ------
    BadInputError
        If it cannot be read, or a key is unknown or holds what it cannot; the key is named.
    """
    found = TrainFile(f"{path}: ", **read_toml(path))
    folder = path.parent
    more = [More(volume=str(folder / one.volume), labels=str(folder / one.labels)) for one in found.more]
    changes: dict[str, Any] = {"more": more} if more else {}
    if found.weights not in NAMED_WEIGHTS:
        changes["weights"] = str(folder / found.weights)
    return found.model_copy(update=changes)
