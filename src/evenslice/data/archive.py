"""An archive from the web: download and verify it, and unpack it safely."""

import lzma
import re
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit, urlunsplit

from evenslice.errors import BadInputError, one_line
from evenslice.progress import Progress, silent
from evenslice.volume.atomic import DISK

TIMEOUT_S = 60.0
RETRIES = 3
MB = 10**6
_HUB = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STATED_HASH = re.compile(r'"?(?:md5:([0-9a-f]{32})|([0-9a-f]{64}))"?')
_PERMANENT = (401, 403, 404, 410)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class DamagedError(BadInputError):
    """An archive that is not whole: downloading it again may help."""


def download(url: str, folder: Path) -> tuple[Path, str]:
    """Download a file into a folder, unless it is there whole; a cut download starts over.

    Returns the file, and the hash that its server states and that it agrees with
    (``algorithm:digits``), or empty. ``BadInputError`` if it cannot be downloaded, or does not
    agree; nothing is left in the folder then.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadInputError(f"{url} is no web address, expected http:// or https://; correct it")
    on_hub = _HUB.fullmatch(url)
    try:
        return _from_hub(on_hub, folder) if on_hub else _from_server(url, folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise BadInputError(
            f"{without_secrets(url)} cannot be fetched ({_reason(error)}), expected a file; "
            "check address and network, then run the same command again"
        ) from error


def _from_server(url: str, folder: Path) -> tuple[Path, str]:
    import pooch
    import requests

    answer = requests.head(url, allow_redirects=True, timeout=TIMEOUT_S)
    if answer.status_code in _PERMANENT:
        answer.raise_for_status()
    tags = [one.headers.get("ETag", "") for one in (*answer.history, answer)]
    stated = next(filter(None, map(_stated_hash, tags)), "")
    pooch.get_logger().setLevel("ERROR")
    name = re.sub(r"[^\w.+-]", "_", unquote(urlsplit(url).path.rpartition("/")[2])) or "archive"
    store = pooch.create(folder, "", registry={name: stated or None}, urls={name: url})
    store.retry_if_failed = RETRIES
    get = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT_S)
    return Path(store.fetch(name, downloader=get)), stated


def _from_hub(address: re.Match[str], folder: Path) -> tuple[Path, str]:
    import huggingface_hub as hub

    repository, revision, file = map(unquote, address.groups())
    path = Path(hub.hf_hub_download(repository, file, revision=revision, local_dir=folder))
    metadata = hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision))
    stated = _stated_hash(metadata.etag or "")
    if stated and stated != f"sha256:{sha256_of(path)}":
        raise ValueError(f"it differs from the {stated} that its server states")
    return path, stated


def _stated_hash(tag: str) -> str:
    """Return the hash that an entity tag states: Zenodo an md5, the hub a sha256."""
    found = _STATED_HASH.fullmatch(tag)
    return "" if found is None else f"md5:{found[1]}" if found[1] else f"sha256:{found[2]}"


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed, without the query of the address."""
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {getattr(response, 'reason', '')}".strip()
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.RequestException):
        return "no connection to the server, or it was cut"
    return one_line(str(error)) or type(error).__name__


def without_secrets(url: str) -> str:
    """Return an address without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    import pooch

    return str(pooch.file_hash(str(path), "sha256"))


@dataclass(frozen=True)
class _Entry:
    """A file in an archive: its path (there, then below the folder), bytes, how to open it."""

    path: str
    size: int
    open: Callable[[], IO[bytes] | None]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def unpack(
    archive: Path, folder: Path, wanted: Sequence[str], most: int, progress: Progress = silent
) -> list[str]:
    """Unpack a zip or tar (also compressed) into an empty folder; return its files, below that.

    A folder that wraps everything is left out, and a wanted file that lies in another folder of the
    archive is put where it is wanted, if there is only one of its name. ``most`` is the bytes that
    it may hold unpacked.

    Raises
    ------
    BadInputError
        If it is no whole archive (``DamagedError``), is too large, has a path that leaves the
        folder, or lacks one of the ``wanted`` files or folders.
    """
    try:
        with ExitStack() as stack:
            entries = _arranged(_entries(archive, most, stack), wanted, archive)
            pieces = sum(-(-entry.size // MB) for entry in entries)
            step = stack.enter_context(progress("unpacking (MB)", pieces))
            for entry in entries:
                _write(entry, folder, step)
    except BadInputError:
        raise
    except _DAMAGE as error:
        if getattr(error, "errno", None) in DISK:  # the disk is full: the archive may be whole
            raise
        raise DamagedError(
            f"{archive.name} is damaged or neither zip nor tar ({one_line(str(error))}), "
            "expected a whole archive; check the address, or fetch it again"
        ) from error
    return [entry.path for entry in entries]


def _entries(archive: Path, most: int, stack: ExitStack) -> list[_Entry]:
    """List the files of an archive; stop where they are more than fits the dataset."""
    found, total = [], 0
    for entry in (_of_zip if zipfile.is_zipfile(archive) else _of_tar)(archive, stack):
        path = entry.path.replace("\\", "/").removeprefix("./")
        if path.startswith("/") or ":" in path or ".." in path.split("/"):
            raise BadInputError(
                f"{archive.name} holds a path that leaves its folder ({entry.path!r}), expected "
                "files within one folder; check where the archive is from"
            )
        total += entry.size
        if total > most:
            raise BadInputError(
                f"{archive.name} holds more than {most / MB:.0f} MB, expected less for this data "
                "set; check where the archive is from"
            )
        found.append(replace(entry, path=path))
    return [one for one in found if not one.path.startswith("__MACOSX/") and one.name[:2] != "._"]


def _of_zip(path: Path, stack: ExitStack) -> Iterator[_Entry]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for info in archive.infolist():
        if not info.is_dir():
            yield _Entry(info.filename, info.file_size, partial(archive.open, info))


def _of_tar(path: Path, stack: ExitStack) -> Iterator[_Entry]:
    archive = stack.enter_context(tarfile.open(path))  # noqa: SIM115
    for info in archive:
        if info.isreg():  # no links and no devices
            yield _Entry(info.name, info.size, partial(archive.extractfile, info))


def _arranged(entries: list[_Entry], wanted: Sequence[str], archive: Path) -> list[_Entry]:
    """Return the entries with the paths that they get, all wanted ones among them."""
    while _lacking(entries, wanted) and _are_in_one_folder(entries):
        entries = [replace(entry, path=entry.path.partition("/")[2]) for entry in entries]
    for name in _lacking(entries, wanted):
        matches = [entry for entry in entries if entry.name == name]
        if len(matches) == 1:
            entries[entries.index(matches[0])] = replace(matches[0], path=name)
    lacking = _lacking(entries, wanted)
    if lacking:
        names = ", ".join(entry.path for entry in entries[:6]) or "nothing"
        raise BadInputError(
            f"{archive.name} lacks {', '.join(lacking)} (it holds {names}"
            f"{', ...' if len(entries) > 6 else ''}), expected {', '.join(wanted)}; get the "
            "archive that has them"
        )
    return entries


def _are_in_one_folder(entries: list[_Entry]) -> bool:
    tops = {entry.path.partition("/")[:2] for entry in entries}
    return len(tops) == 1 and tops.pop()[1] == "/"


def _lacking(entries: list[_Entry], wanted: Sequence[str]) -> list[str]:
    return [
        name
        for name in wanted
        if not any(entry.path == name or entry.path.startswith(f"{name}/") for entry in entries)
    ]


def _write(entry: _Entry, folder: Path, step: Callable[[], None]) -> None:
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = entry.open()
    assert source is not None  # it is a regular file
    with source, target.open("xb") as file:
        while piece := source.read(MB):
            file.write(piece)
            step()
