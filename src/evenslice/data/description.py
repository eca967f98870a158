"""How a public data set is described: sources, parts, conversions."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

CONTAINER = re.compile(r"(\.(?:h5|hdf5|hdf|he5)):.*$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where an archive is to be had.

    Attributes
    ----------
    url
        Its address.
    page
        The page that describes it, for people.
    sha256
        What somebody states that it should be, or None.
    stated_by
        Who states it.
    """

    url: str
    page: str
    sha256: str | None = None
    stated_by: str = ""


@dataclass(frozen=True)
class Part:
    """One volume with its labels.

    Attributes
    ----------
    role
        What it is for.
    raw, labels
        Paths below the folder of the data set, as ``open_volume`` takes them (``train_im.h5:/main`` chooses inside a container).
    span
        Slices [z0, z1) of the files that belong to this part, None for all.
    """

    role: Literal["train", "test"]
    raw: str
    labels: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Conversion:
    """A file that is made from what the archive holds.

    Attributes
    ----------
    source, target
        Paths below the folder of the data set; the target is a TIFF.
    kind
        ``grey``: the same voxels. ``dark``: labels, 1 where the source is dark. ``rarer``: labels, 1 for the rarer of dark and bright.
    """

    source: str
    target: str
    kind: Literal["grey", "dark", "rarer"]


@dataclass(frozen=True)
class Dataset:
    """A public data set.

    Attributes
    ----------
    name, title
        What it is called, and what it shows.
    folder
        Name of its folder within ``default_folder()``.
    sources
        Where it is to be had; the first is fetched, the others are named.
    parts
        One to train on and one to test on.
    shape
        (z, y, x) of each volume as published.
    voxel_nm
        (z, y, x), None where the source does not state it.
    target
        What the labels mean, as ``Target`` takes it.
    split, terms, citation, doi, size, notes
        In words.
    conversions
        What is made of the files after unpacking.
    aliases
        Other spellings; case, spaces and signs never matter.
    """

    name: str
    title: str
    folder: str
    sources: tuple[Source, ...]
    parts: tuple[Part, ...]
    shape: tuple[int, int, int]
    voxel_nm: tuple[float, float, float] | None
    target: Literal["boundary", "foreground", "classes"]
    split: str
    terms: str
    citation: str
    doi: str
    size: str
    notes: str = ""
    conversions: tuple[Conversion, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def train(self) -> Part:
        """The part to train on."""
        return next(part for part in self.parts if part.role == "train")

    @property
    def test(self) -> Part:
        """The part that is not trained on."""
        return next(part for part in self.parts if part.role == "test")

    @property
    def files(self) -> tuple[str, ...]:
        """All that must lie in the folder: volumes, labels, and the text files beside raw voxels."""
        volumes = dict.fromkeys(file_of(path) for part in self.parts for path in (part.raw, part.labels))
        beside = [f"{path}.info" for path in volumes if path.endswith(".raw")]
        return (*volumes, *beside)

    @property
    def archived(self) -> tuple[str, ...]:
        """What of the files must come out of the archive: those that are not made by a conversion, and the sources of these."""
        made = {one.target for one in self.conversions}
        sources = tuple(one.source for one in self.conversions)
        return (*(path for path in self.files if path not in made), *sources)

    def place(self, folder: str | Path) -> tuple[Part, ...]:
        """Return the parts with their paths in ``folder``, whether they exist or not."""
        return tuple(
            replace(part, raw=str(Path(folder) / part.raw), labels=str(Path(folder) / part.labels))
            for part in self.parts
        )

    def missing(self, folder: str | Path) -> list[str]:
        """Return those of the files that are absent from ``folder``."""
        return [path for path in self.files if not (Path(folder) / path).exists()]


def file_of(path: str) -> str:
    """Return a path without the part that chooses inside a container."""
    return CONTAINER.sub(r"\1", path)
