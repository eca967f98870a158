"""Bring a public dataset into its folder: download, unpack, convert, verify, put in place."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from evenslice.data.archive import MB, DamagedError, download, sha256_of, unpack, without_secrets
from evenslice.data.registry import Archive, Conversion, Dataset, dataset, default_folder
from evenslice.errors import BadInputError, keeps_warnings
from evenslice.options import JsonObject
from evenslice.progress import Progress, silent
from evenslice.volume.array import Volume, sizes
from evenslice.volume.atomic import folder_written_beside
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.locks import try_lock

RECORD = "evenslice-source.json"
SCHEMA = "evenslice.source/1"
NO_HASH = "of what was received; the page of the source publishes none that we know of"
LARGEST_VOXEL = 8  # bytes
SPARE = 1000 * MB  # for what an archive holds beside the volumes


@dataclass(frozen=True)
class SourceRecord:
    """Where the files of a dataset came from, as written beside them.

    ``compared`` are hashes that others state for the archive, and whether they agree.
    """

    dataset: str
    url: str
    bytes: int
    sha256: str
    sha256_is: str
    compared: list[str]
    fetched: str
    terms: str = "see evenslice data list"  # of files from before they were recorded

    def to_dict(self) -> JsonObject:
        """Return it as JSON takes it."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> "SourceRecord | None":
        """Read the record of a folder, None for files put there by hand."""
        try:
            found = json.loads((folder / RECORD).read_text())
            return cls(**found) if found.pop("schema") == SCHEMA else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class FetchedDataset:
    """A dataset in its folder, its layout verified.

    ``fresh`` says whether it was fetched now; ``record`` is None for files put there by hand;
    ``warnings`` say what differs from what was published.
    """

    dataset: Dataset
    folder: Path
    fresh: bool
    record: SourceRecord | None
    warnings: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The words of a command that trains on it."""
        train, test = self.dataset.train, self.dataset.test
        paths = [str(self.folder / path) for path in (train.raw, train.labels)]
        words = ["evenslice", "train", *paths, "model.safetensors", "--target", self.dataset.target]
        if test.raw == train.raw and test.span:
            words += ["--validation", f"{test.span[0]}:{test.span[1]}"]
        return words

    def to_dict(self) -> JsonObject:
        """Return it as JSON takes it."""
        return {
            "schema": "evenslice.data/1",
            **self.dataset.describe(self.folder),
            "fresh": self.fresh,
            "source": None if self.record is None else self.record.to_dict(),
            "notes": list(self.warnings),
            "command": self.command,
        }


@keeps_warnings
def fetch(
    name: str,
    to: Path | None = None,
    source: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> FetchedDataset:
    """Bring a public dataset into its folder, or verify it if it is there.

    Parameters
    ----------
    name, to
        Of the dataset, and its folder; its own within ``default_folder()`` if None.
    source
        Another address of the archive, or the archive itself as a file.
    force
        Fetch again what is there, and replace it.

    Raises
    ------
    BadInputError
        If there is no such dataset, it cannot be downloaded or unpacked, its files are not as
        described, or files are in the way.
    """
    known = dataset(name)
    folder = default_folder() / known.folder if to is None else to
    if not force and not known.missing(folder):
        return _verified(known, folder, fresh=False)
    downloads = folder.resolve().with_name(f".{folder.resolve().name}.download")
    with _alone(folder, downloads), folder_written_beside(folder, True, beside=True) as part:
        if not force and not known.missing(folder):  # a killed fetch had its files to move only
            return _verified(known, folder, fresh=True)
        _check_free(folder, (*known.files, *known.archived_files), force)
        archive, record = _archive(known, downloads, source, force)
        most = SPARE + len(known.archived_files) * LARGEST_VOXEL * math.prod(known.shape)
        try:
            files = unpack(archive, part, known.archived_files, most, progress)
            with progress("verifying", 0):
                for conversion in known.conversions:
                    convert(conversion, part, known.voxel_nm)
                notes = verify_layout(known, part)
        except DamagedError:
            shutil.rmtree(downloads, ignore_errors=True)
            raise
        except BadInputError as error:
            raise BadInputError(str(error).replace(f"{part}/", f"{archive.name}:")) from error
        _check_free(folder, files, force)
        text = json.dumps(record.to_dict(), indent=2, ensure_ascii=False)
        (part / RECORD).write_text(f"{text}\n")
    differs = [line for line in record.compared if "differs" in line]
    return FetchedDataset(known, folder, True, record, (*notes, *differs))


def verify_layout(known: Dataset, folder: Path) -> tuple[str, ...]:
    """Open every volume of a dataset and return what is not as published.

    ``BadInputError`` if one cannot be opened, or labels differ in shape from their volume.
    """
    notes: dict[str, None] = {}
    published = (known.shape, (known.shape[0], *known.shape[:0:-1]))  # either order of y and x
    for volume in known.volumes:
        raw, labels = (open_volume(folder / path) for path in (volume.raw, volume.labels))
        if raw.shape != labels.shape:
            raise BadInputError(
                f"{labels.source} is {sizes(labels.shape)}, expected {sizes(raw.shape)} like "
                f"{raw.source}; check the archive"
            )
        if raw.shape not in published:
            notes[
                f"{volume.raw} is {sizes(raw.shape)}; {sizes(known.shape)} is what was published"
            ] = None
        if volume.span is not None and volume.span[1] > raw.shape[0]:
            notes[
                f"{volume.raw} ends before slice {volume.span[1]}, so the stated split does not "
                "apply to it"
            ] = None
    return tuple(notes)


def _verified(known: Dataset, folder: Path, fresh: bool) -> FetchedDataset:
    notes = verify_layout(known, folder)
    return FetchedDataset(known, folder, fresh, SourceRecord.read(folder), notes)


@contextmanager
def _alone(folder: Path, downloads: Path) -> Iterator[None]:
    """Let no other process fetch into the folder; afterwards keep no more than a whole archive."""
    made = [path for path in folder.parents if not path.exists()]
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        with try_lock(downloads / "fetch.lock") as free:
            if not free:
                raise BadInputError(
                    f"another process is fetching into {folder}, expected none; wait for it, or "
                    "choose another folder with --to"
                )
            try:
                yield
                shutil.rmtree(downloads, ignore_errors=True)
            finally:
                if not any(path.is_dir() for path in downloads.glob("*")):
                    shutil.rmtree(downloads, ignore_errors=True)
    finally:
        with suppress(OSError):  # they stay if anything lies in them
            for path in made:
                path.rmdir()


def _check_free(folder: Path, files: Sequence[str], force: bool) -> None:
    there = [path for path in dict.fromkeys(files) if (folder / path).exists()]
    if there and not force:
        raise BadInputError(
            f"{folder} holds {', '.join(there)}, expected none of the files of the dataset; "
            "choose another folder with --to, or add --force to replace them"
        )


def _archive(
    known: Dataset, downloads: Path, source: str | None, force: bool
) -> tuple[Path, SourceRecord]:
    """Return the archive, downloaded if need be, and a record of where it came from."""
    compared = []
    if source is not None and "://" not in source:
        path, shown = Path(source), Path(source).name
        if not path.is_file():
            raise BadInputError(
                f"--from is {source}, which is no file, expected an archive or an address "
                "http:// or https://; check the path"
            )
    else:
        chosen = known.archives[0] if source is None else Archive(source, "")
        shown = without_secrets(chosen.url)
        store = downloads / sha256(chosen.url.encode()).hexdigest()[:16]
        if force:
            shutil.rmtree(store, ignore_errors=True)
        path, stated = download(chosen.url, store)
        if stated:
            compared.append(f"{stated.partition(':')[0]} stated by the server: agrees")
    digest = sha256_of(path)
    if source is None and chosen.sha256 is not None:
        word = "agrees" if chosen.sha256 == digest else f"differs ({chosen.sha256})"
        compared.append(f"sha256 stated by {chosen.stated_by}: {word}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    size = path.stat().st_size
    return path, SourceRecord(known.name, shown, size, digest, NO_HASH, compared, now, known.terms)


def convert(
    conversion: Conversion, folder: Path, voxel_nm: tuple[float, float, float] | None
) -> None:
    """Write the target of a conversion from its source, both below ``folder``.

    ``BadInputError`` if the source cannot be read, has one value only, or the larger part labelled.
    """
    source = open_volume(folder / conversion.source)
    voxels = source.read((slice(None), slice(None), slice(None)))
    if conversion.kind != "grey":
        dark = voxels < (float(voxels.min()) + float(voxels.max())) / 2
        fraction = float(dark.mean())
        if fraction in (0, 1) or (conversion.kind == "dark" and fraction >= 0.5):
            raise BadInputError(
                f"{source.source} is dark in {100 * fraction:.0f} % of its pixels, expected labels "
                "that are darker or brighter than the larger part; check the archive"
            )
        voxels = np.asarray(dark if fraction < 0.5 else ~dark, np.uint8)
    meaning = "intensity" if conversion.kind == "grey" else "labels"
    save_volume(folder / conversion.target, Volume(voxels, voxel_nm, source.source, meaning))
