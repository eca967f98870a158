"""The public datasets of ``datasets.toml`` by name."""

import os
import re
import tomllib
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from evenslice.errors import BadInputError
from evenslice.options import JsonObject

VARIABLE = "EVENSLICE_DATA"


@dataclass(frozen=True)
class Archive:
    """An archive on the web, the page that describes it, and a hash that others state for it."""

    url: str
    page: str
    sha256: str | None = None
    stated_by: str = ""


@dataclass(frozen=True)
class LabelledVolume:
    """One volume with its labels: paths below the folder, slices [z0, z1) of them or all."""

    role: Literal["train", "test"]
    raw: str
    labels: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Conversion:
    """A TIFF made from what the archive holds; both paths lie below the folder of the dataset.

    ``grey``: the same voxels. ``dark``: labels, 1 where the source is dark. ``rarer``: labels,
    1 for the rarer of dark and bright.
    """

    source: str
    target: str
    kind: Literal["grey", "dark", "rarer"]


@dataclass(frozen=True)
class Dataset:
    """A public dataset: where it is published (the first archive is fetched), and what it holds.

    ``folder`` lies within ``default_folder()``; ``shape`` and ``voxel_nm`` are (z, y, x) as
    published, None where not stated; ``conversions`` are made after unpacking; ``aliases`` are
    other spellings (case, spaces and punctuation never matter).
    """

    name: str
    title: str
    folder: str
    archives: tuple[Archive, ...]
    volumes: tuple[LabelledVolume, ...]
    shape: tuple[int, int, int]
    target: Literal["boundary", "foreground", "classes"]
    split: str
    terms: str
    citation: str
    doi: str
    size: str
    voxel_nm: tuple[float, float, float] | None = None
    notes: str = ""
    conversions: tuple[Conversion, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def train(self) -> LabelledVolume:
        """The volume to train on."""
        return next(volume for volume in self.volumes if volume.role == "train")

    @property
    def test(self) -> LabelledVolume:
        """The volume that is not trained on."""
        return next(volume for volume in self.volumes if volume.role == "test")

    @property
    def files(self) -> tuple[str, ...]:
        """All that must lie in the folder: volumes, labels, and the text files of raw voxels."""
        paths = dict.fromkeys(path for one in self.volumes for path in (one.raw, one.labels))
        return (*paths, *(f"{path}.info" for path in paths if path.endswith(".raw")))

    @property
    def archived_files(self) -> tuple[str, ...]:
        """What must come out of the archive: files that no conversion makes, and its sources."""
        made = {one.target for one in self.conversions}
        sources = tuple(one.source for one in self.conversions)
        return (*(path for path in self.files if path not in made), *sources)

    def missing(self, folder: Path) -> list[str]:
        """Return those of the files that are absent from ``folder``."""
        return [path for path in self.files if not (folder / path).exists()]

    def describe(self, folder: Path) -> JsonObject:
        """Return what is known of it, and whether it lies in ``folder``, as JSON takes it."""
        missing = self.missing(folder)
        facts = ("name", "title", "shape", "voxel_nm", "target", "split", "terms", "citation")
        return {
            **{name: getattr(self, name) for name in (*facts, "doi", "size")},
            "folder": str(folder),
            "present": not missing,
            "missing": missing,
            "parts": [asdict(volume) for volume in self.volumes],
            "remarks": self.notes,
            "sources": [{"url": one.url, "page": one.page} for one in self.archives],
        }


def _read() -> tuple[Dataset, ...]:
    """Read the datasets of ``datasets.toml``."""
    text = resources.files("evenslice.data").joinpath("datasets.toml").read_text(encoding="utf-8")
    known: dict[str, JsonObject] = {}
    for entry in tomllib.loads(text)["dataset"]:
        known[entry["name"]] = known.get(entry.pop("like", ""), {}) | entry
    return TypeAdapter(tuple[Dataset, ...]).validate_python(tuple(known.values()))


DATASETS = _read()


def dataset(name: str) -> Dataset:
    """Return a dataset by name; case, spaces and punctuation do not matter.

    ``BadInputError`` if there is none of that name.
    """
    known = {_bare(spelling): one for one in DATASETS for spelling in (one.name, *one.aliases)}
    found = known.get(_bare(name))
    if found is not None:
        return found
    close = dict.fromkeys(known[key].name for key in get_close_matches(_bare(name), known, n=3))
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    names = ", ".join(one.name for one in DATASETS)
    raise BadInputError(f"the dataset {name!r} is unknown, expected one of {names}{hint}")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def default_folder() -> Path:
    """Return the folder of all datasets: $EVENSLICE_DATA, or ``data`` in the current one."""
    return Path(os.environ.get(VARIABLE) or "data")
