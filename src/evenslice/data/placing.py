"""Public data sets in their folders: fetched, unpacked, converted, looked at, and only then put in place."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from evenslice.data.connection import shown
from evenslice.data.conversion import convert
from evenslice.data.fetch import MB, Received, download, forget, is_kept, sha256_of
from evenslice.data.registry import Dataset, Source, dataset, default_folder
from evenslice.data.unpack import DamagedError, unpack
from evenslice.errors import BadInputError
from evenslice.progress import Progress, silent
from evenslice.volume.array import sizes
from evenslice.volume.atomic import fsync, fsync_tree, named
from evenslice.volume.files import open_volume
from evenslice.volume.locks import SUFFIXES, try_lock

RECORD = "evenslice-source.json"
SCHEMA = "evenslice.source/1"
LOCK = ".evenslice-fetch.lock"
STAGE = ".evenslice-unpacking"
MOVING = ".evenslice-moving"  # what is complete, until all of it has its names
LARGEST_VOXEL = 8
SPARE = 1000 * MB


@dataclass(frozen=True)
class Placed:
    """A data set that lies in its folder, looked at.

    Attributes
    ----------
    dataset, folder
        Which, and where.
    fresh
        Whether it was fetched now, or was there already.
    record
        What is known of where it came from; empty for files put there by hand.
    notes
        What the user should know.
    """

    dataset: Dataset
    folder: Path
    fresh: bool
    record: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The words of a command that trains on it."""
        train, test = self.dataset.train, self.dataset.test
        held = (
            ["--validation", f"{test.span[0]}:{test.span[1]}"]
            if test.raw == train.raw and test.span
            else []
        )
        paths = [str(self.folder / path) for path in (train.raw, train.labels)]
        return [
            "evenslice",
            "train",
            *paths,
            "model.safetensors",
            "--target",
            self.dataset.target,
            *held,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "schema": "evenslice.data/1",
            **facts(self.dataset, self.folder),
            "fresh": self.fresh,
            "source": self.record or None,
            "notes": list(self.notes),
            "command": self.command,
        }


def facts(known: Dataset, folder: Path) -> dict[str, Any]:
    """Return what is known of a data set, and whether it lies in a folder, as JSON takes it."""
    missing = known.missing(folder)
    return {
        "name": known.name,
        "title": known.title,
        "folder": str(folder),
        "present": not missing,
        "missing": missing,
        "shape": list(known.shape),
        "voxel_nm": None if known.voxel_nm is None else list(known.voxel_nm),
        "target": known.target,
        "parts": [
            {"role": p.role, "raw": p.raw, "labels": p.labels, "span": p.span and list(p.span)}
            for p in known.parts
        ],
        "split": known.split,
        "terms": known.terms,
        "citation": known.citation,
        "doi": known.doi,
        "size": known.size,
        "remarks": known.notes,
        "sources": [{"url": one.url, "page": one.page} for one in known.sources],
    }


def fetch(
    name: str,
    to: Path | None = None,
    source: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Placed:
    """Bring a public data set into its folder, or look at it if it is there.

    Parameters
    ----------
    name
        Of the data set.
    to
        Its folder; its own within ``default_folder()`` if None.
    source
        Another address of the archive, or the archive itself as a file.
    force
        Fetch again what is there, and replace it.
    progress
        Shows MB.

    Raises
    ------
    BadInputError
        If there is no such data set, it cannot be fetched or unpacked, its files are not as described, or files are in the way.
    """
    known = dataset(name)
    folder = default_folder() / known.folder if to is None else to
    if folder.exists() and not folder.is_dir():
        raise BadInputError(
            f"{folder} is a file, expected a folder for the data set; choose another with --to"
        )
    if (
        folder.is_dir()
        and not known.missing(folder)
        and not force
        and not _is_left(known, folder, source)
    ):
        return Placed(known, folder, False, _record_in(folder), look(known, folder))
    with _held(folder), named(folder, folder / STAGE):
        if _is_left(known, folder, source):
            if (folder / MOVING).exists():
                _move(folder)
            if not known.missing(folder) and not force:
                if not _is_file(source):
                    forget(_target(known, folder, source))
                return Placed(known, folder, True, _record_in(folder), look(known, folder))
        _check_free(known, folder, force)
        received, record = _archive(known, folder, source, force, progress)
        fetched = not _is_file(source)
        try:
            notes = _place(known, folder, received.path, record, force, progress)
        except DamagedError:
            if fetched:
                forget(received.path)
            raise
        if fetched:
            forget(received.path)
    differs = tuple(line for line in record["compared"] if "differs" in line)
    return Placed(known, folder, True, record, (*notes, *differs))


def look(known: Dataset, folder: Path) -> tuple[str, ...]:
    """Open every volume of a data set and return what is not as published.

    Raises
    ------
    BadInputError
        If one cannot be opened, or labels do not lie voxel for voxel on their volume.
    """
    notes: dict[str, None] = {}
    for part in known.parts:
        raw, labels = (open_volume(folder / path) for path in (part.raw, part.labels))
        if raw.shape != labels.shape:
            raise BadInputError(
                f"{labels.source} is {sizes(labels.shape)}, expected {sizes(raw.shape)} like {raw.source}; check the archive"
            )
        if raw.shape not in (known.shape, (known.shape[0], *known.shape[:0:-1])):
            notes[
                f"{part.raw} is {sizes(raw.shape)}; {sizes(known.shape)} is what was published"
            ] = None
        if part.span is not None and part.span[1] > raw.shape[0]:
            notes[
                f"{part.raw} ends before slice {part.span[1]}, so the stated split does not apply to it"
            ] = None
    return tuple(notes)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make the folder if need be and hold its lock; leave nothing if nothing was received."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / LOCK) as free:
        if not free:
            raise BadInputError(
                f"another process is fetching into {folder}, expected none; wait for it, or choose another folder with --to"
            )
        try:
            yield
        finally:
            shutil.rmtree(folder / STAGE, ignore_errors=True)
            if made and all(item.name.endswith(SUFFIXES) for item in folder.iterdir()):
                with suppress(OSError):  # another process has begun there
                    for file in folder.iterdir():
                        file.unlink()
                    for path in made:
                        path.rmdir()


def _check_free(known: Dataset, folder: Path, force: bool) -> None:
    """Raise if a file is in the way, before anything is fetched."""
    there = [
        path for path in dict.fromkeys((*known.files, *known.archived)) if (folder / path).exists()
    ]
    if there and not force:
        raise BadInputError(
            f"{folder} holds {', '.join(there)} but not all of {known.name}, expected none of its files; choose another folder with --to, "
            "or add --force to replace them"
        )


def _archive(
    known: Dataset, folder: Path, source: str | None, force: bool, progress: Progress
) -> tuple[Received, dict[str, Any]]:
    """Return the archive, and a record of where it came from."""
    if source is not None and _is_file(source):
        path = Path(source)
        if not path.is_file():
            raise BadInputError(
                f"--from is {source}, which is no file, expected an archive or an address http:// or https://; check the path"
            )
        received = Received(path, path.stat().st_size, sha256_of(path))
        return received, _record(known, path.name, received, None)
    chosen = known.sources[0] if source is None else Source(source, "")
    target = _target(known, folder, source)
    if force and target.is_file():
        forget(target)
    received = download(chosen.url, target, progress)
    return received, _record(known, shown(chosen.url), received, chosen)


def _is_left(known: Dataset, folder: Path, source: str | None) -> bool:
    """Whether a process ended before it had named all files, or removed the archive they are from."""
    return (folder / MOVING).exists() or (
        not _is_file(source) and is_kept(_target(known, folder, source))
    )


def _target(known: Dataset, folder: Path, source: str | None) -> Path:
    return folder / _name_of(known.sources[0].url if source is None else source)


def _is_file(source: str | None) -> bool:
    return source is not None and "://" not in source


def _name_of(url: str) -> str:
    """Return a file name for what lies at an address."""
    return (
        re.sub(r"[^\w.+-]", "_", unquote(urlsplit(url).path.rsplit("/", 1)[-1])).lstrip(".")[-100:]
        or "archive"
    )


def _record(
    known: Dataset, where: str, received: Received, source: Source | None
) -> dict[str, Any]:
    compared = [f"{received.stated[0]} stated by the server: agrees"] if received.stated else []
    if source is not None and source.sha256 is not None:
        word = "agrees" if source.sha256 == received.sha256 else f"differs ({source.sha256})"
        compared.append(f"sha256 stated by {source.stated_by}: {word}")
    return {
        "schema": SCHEMA,
        "dataset": known.name,
        "url": where,
        "bytes": received.size,
        "sha256": received.sha256,
        "sha256_is": "of what was received; the page of the source publishes none that we know of",
        "compared": compared,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _place(
    known: Dataset,
    folder: Path,
    archive: Path,
    record: dict[str, Any],
    force: bool,
    progress: Progress,
) -> tuple[str, ...]:
    """Unpack and convert beside, look at it, move it into place."""
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a killed run
    stage.mkdir()
    volumes = {path for part in known.parts for path in (part.raw, part.labels)} | set(
        known.archived
    )
    unpack(
        archive,
        stage,
        known.archived,
        SPARE + len(volumes) * LARGEST_VOXEL * math.prod(known.shape),
        progress,
    )
    try:
        for conversion in known.conversions:
            convert(conversion, stage, known.voxel_nm)
        notes = look(known, stage)
    except BadInputError as error:
        raise BadInputError(str(error).replace(f"{stage}/", f"{archive}:")) from error
    (stage / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    targets = [
        folder / path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()
    ]
    there = [str(target) for target in targets if target.exists() and target.name != RECORD]
    if there and not force:
        raise BadInputError(
            f"{there[0]} exists, expected a new name; add --force to replace it, or use another --to"
        )
    fsync_tree(stage)
    stage.rename(folder / MOVING)
    _move(folder)
    return notes


def _move(folder: Path) -> None:
    """Give what is complete its names, the record last; if that is cut short, the next fetch goes on with it."""
    moving = folder / MOVING
    files = sorted(path for path in moving.rglob("*") if path.is_file() and path != moving / RECORD)
    for path in (*files, *(one for one in [moving / RECORD] if one.exists())):
        target = folder / path.relative_to(moving)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    fsync(folder)
    shutil.rmtree(moving)


def _record_in(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    known = (
        isinstance(found, dict)
        and found.get("schema") == SCHEMA
        and found.keys() >= {"sha256", "sha256_is"}
    )
    known = known and isinstance(found.get("compared", []), list)
    return found if known else {}
