"""Addresses of volumes: folders on a disk, in buckets and on servers, and how their arrays open."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Roi, Voxels, first_line, spans
from evenslice.volume.cache import CACHE_BYTES

REMOTE_CACHE_BYTES = 2**30
RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "16s"}  # half a minute
ANSWER_S = 60
_PREFIX = re.compile(r"(precomputed|n5|zarr)[23]?:/+(.*)", re.DOTALL)
_REMOTE = re.compile(r"(s3|gs|https?):/+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Remote:
    """A folder in a bucket or on a server, used as a ``Path`` is."""

    address: str
    known: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> "Remote":
        inner = [part for part in name.split("/") if part not in ("", ".")]
        return Remote("/".join([self.address, *inner]), self.known)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rsplit("/", 1)[-1]

    @property
    def parents(self) -> tuple["Remote", ...]:
        """The folders around it, up to the bucket or server."""
        root, found = self.address.index("://") + 3, []
        rest = self.address
        while "/" in rest[root:]:
            rest = rest.rsplit("/", 1)[0]
            found.append(Remote(rest, self.known))
        return tuple(found)

    @property
    def parent(self) -> "Remote":
        """The folder around it; of a bucket or server itself."""
        return (*self.parents, self)[0]


Folder = Path | Remote


def parse_address(path: str | Path) -> tuple[str | None, Folder]:
    """Return the format that a prefix as of neuroglancer names, and the folder or file.

    An address that became a ``Path``, and so lost a slash, is known as well. Raises
    ``BadInputError`` for an address that holds a password or a query.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    prefixed = _PREFIX.fullmatch(text)
    kind, rest = (None, text) if prefixed is None else (prefixed[1], prefixed[2])
    found = _REMOTE.fullmatch(rest)
    if found is None:
        local = rest.removeprefix("file:")
        return kind, Path(path) if prefixed is None else Path("/" + local.lstrip("/"))
    address = f"{found[1]}://{found[2].rstrip('/')}"
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or not parts.netloc:
        raise BadInputError(
            f"an address of {parts.hostname or 'no server'} holds no bucket or server, or a "
            "password or query, expected SCHEME://SERVER/PATH alone; give credentials in the "
            "environment"
        )
    return kind, Remote(address)


def is_remote(path: str | Path) -> bool:
    """Whether a volume lies in a bucket or on a server."""
    return isinstance(parse_address(path)[1], Remote)


def read_file(folder: Folder, name: str) -> bytes | None:
    """Return a small file of a folder; None if it is not there, or not to be seen.

    Raises ``BadInputError`` if the server does not answer within a minute.
    """
    if isinstance(folder, Path):
        file = folder / name
        return file.read_bytes() if file.is_file() else None
    key = str(folder / name)
    if key not in folder.known:
        import tensorstore

        try:
            store = tensorstore.KvStore.open(kvstore_of(folder), context=context(True))
            found = store.result().read(name).result(timeout=ANSWER_S)
            folder.known[key] = found.value if found.state == "value" else None
        except Exception as error:  # of many kinds
            if "PERMISSION_DENIED" not in str(error):  # what many buckets answer of missing files
                raise unreachable(key, error) from error
            folder.known[key] = None
    return folder.known[key]


def unreachable(source: object, error: Exception) -> BadInputError:
    """Return the error for what a server does not give."""
    return BadInputError(
        f"{source} cannot be read ({reason(error)}), expected a server or bucket that answers; "
        "check the address and the network, and try again"
    )


def reason(error: Exception) -> str:
    """Return the first line of an error of tensorstore without its own details."""
    return first_line(re.split(r" \[|: CURL|; URL", str(error))[0] or "no answer within a minute")


def kvstore_of(folder: Folder) -> dict[str, Any]:
    """Return how tensorstore opens a folder; credentials are those of the environment, if any."""
    if isinstance(folder, Path):
        return {"driver": "file", "path": f"{folder.absolute()}/"}
    scheme, _, rest = folder.address.partition("://")
    bucket, _, inner = rest.partition("/")
    place = {"bucket": bucket, "path": f"{inner}/" if inner else ""}
    if scheme == "s3":
        stated = {
            "endpoint": os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL")),
            "aws_region": os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION")),
        }
        return {"driver": "s3", **place, **{key: value for key, value in stated.items() if value}}
    if scheme == "gs" and "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:
        return {"driver": "gcs", **place}
    base = f"https://storage.googleapis.com/{rest}" if scheme == "gs" else folder.address
    return {"driver": "http", "base_url": f"{base}/"}


@cache
def context(remote: bool) -> Any:
    """Return what all stores share: one bounded cache of decoded chunks, and how to try again."""
    import tensorstore

    kinds = {"AWS_ACCESS_KEY_ID": "environment", "AWS_PROFILE": "default"}
    found = next((kind for name, kind in kinds.items() if name in os.environ), "anonymous")
    limit = REMOTE_CACHE_BYTES if remote else CACHE_BYTES
    shared: dict[str, Any] = {
        "cache_pool": {"total_bytes_limit": limit},
        "aws_credentials": {"type": found},
    }
    for kind in ("http", "s3", "gcs"):
        shared[f"{kind}_request_retries"] = RETRIES
    return tensorstore.Context(shared)


def open_tensor(folder: Folder, driver: str, **more: Any) -> Any:
    """Open an array with tensorstore; raises what tensorstore raises."""
    import tensorstore

    known = {"recheck_cached_data": "open", "recheck_cached_metadata": "open"}
    spec = {"driver": driver, "kvstore": kvstore_of(folder), **known, **more}
    shared = context(isinstance(folder, Remote))
    return tensorstore.open(spec, context=shared, open=True, read=True).result()


class TensorPixels:
    """Lazy pixels (z, y, x) of an array that tensorstore has opened; chunks are kept decoded.

    ``axes`` are those of the array that are z, y and x; of others, all of size 1, the first is
    read.
    """

    def __init__(self, array: Any, axes: Sequence[int], source: object) -> None:
        low = array.domain.inclusive_min
        others = [axis for axis in range(array.ndim) if axis not in axes]
        part = [low[n] if n in others else slice(None) for n in range(array.ndim)]
        left = [axis for axis in range(array.ndim) if axis in axes]
        self._array = array[tuple(part)].transpose([left.index(axis) for axis in axes])
        self._low = self._array.domain.inclusive_min
        self._source, self._is_remote = source, isinstance(source, Remote)
        self._ahead: Any = None
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(array.dtype.numpy_dtype)

    def __getitem__(self, key: Any) -> Voxels:
        """Read a box of contiguous slices."""
        box = spans(key, self.shape)
        try:
            return np.asarray(self._part(box).read(order="C").result())
        except Exception as error:  # each codec and server has its own
            where = ", ".join(f"{b.start}:{b.stop}" for b in box)
            raise BadInputError(
                f"{self._source} cannot be decoded at [{where}] ({reason(error)}), expected whole "
                "chunks; copy or download it again, or try again if a server does not answer"
            ) from error

    def fetch_ahead(self, box: Roi) -> None:
        """Begin to fetch the chunks of a box into the cache: one voxel of each is asked for."""
        if self._is_remote:
            steps = self._array.chunk_layout.read_chunk.shape
            aligned = (
                slice(b.start + -(b.start % step), b.stop, step or 1)
                for b, step in zip(spans(box, self.shape), steps, strict=True)
            )
            self._ahead = self._part(tuple(aligned)).read()

    def _part(self, box: tuple[slice, ...]) -> Any:
        moved = zip(box, self._low, strict=True)
        return self._array[tuple(slice(b.start + n, b.stop + n, b.step) for b, n in moved)]
