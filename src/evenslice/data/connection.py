"""One request for a file or the rest of it over HTTP, and what the server says of the file."""

import http.client
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import version
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from evenslice.errors import BadInputError

TIMEOUT_S = 60.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?', re.IGNORECASE)
_MD5 = re.compile(r'"?md5:([0-9a-f]{32})"?', re.IGNORECASE)


class UnreachableError(Exception):
    """A file could not be had.

    Attributes
    ----------
    passing
        Whether it may be had when asked again.
    """

    def __init__(self, reason: str, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True)
class LogitsAdapter:
    """What a server sends.

    Attributes
    ----------
    status
        200 for the whole file, 206 for the rest of it, 416 if there is no such rest.
    start
        First byte of what follows, counted from the start of the file.
    total
        Bytes of the whole file, None if it is not said.
    etag
        What changes when the file changes (strong entity tag, else date), or None.
    digest
        Algorithm and hexadecimal digest of the whole file, or None. Hugging Face states a sha256, Zenodo an md5.
    body
        The bytes.
    """

    status: int
    start: int
    total: int | None
    etag: str | None
    digest: tuple[str, str] | None
    body: IO[bytes]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow to http and https only, never from https to http; remember the digest stated on the way."""

    digest: tuple[str, str] | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        here, there = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if there not in ("http", "https") or (here == "https" and there == "http"):
            fp.close()
            raise UnreachableError(
                f"it leads from {here} to {there or 'nowhere'}, which is not followed", False
            )
        self.digest = digest_of(headers) or self.digest
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """Raise ``BadInputError`` unless an address is one of http or https."""
    try:
        good = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        raise BadInputError(
            f"{url} is no address, expected http:// or https://; correct it"
        ) from None
    if not good:
        raise BadInputError(
            f"{shown(url)} is no address that is fetched, expected http:// or https://; give such a one"
        )


def shown(url: str) -> str:
    """Return an address without what may be secret: name, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def digest_of(headers: Message) -> tuple[str, str] | None:
    """Return algorithm and digest of the file that the headers state, or None."""
    for pattern, name, algorithm in ((_SHA256, "X-Linked-Etag", "sha256"), (_MD5, "ETag", "md5")):
        found = pattern.fullmatch(headers.get(name, "").strip())
        if found:
            return algorithm, found[1].lower()
    return None


@contextmanager
def ask(url: str, start: int = 0, etag: str | None = None) -> Iterator[LogitsAdapter]:
    """Ask for a file from byte ``start`` on, if it is still the one of that ``etag``.

    Raises
    ------
    UnreachableError
        If no such answer came.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": f"evenslice/{version('evenslice')}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": etag} if etag else {}
    redirects = _Redirects()
    opener = _opener(redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        response = error
    except Exception as error:
        raise _reason(error) from error
    with response:
        yield _answer(response, redirects.digest)


def _opener(redirects: _Redirects) -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https and nothing else, files and FTP least of all."""
    opener = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        redirects,
    )
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _answer(response: Any, digest: tuple[str, str] | None) -> LogitsAdapter:
    headers, status = response.headers, response.status
    if 300 <= status < 400:
        raise UnreachableError(
            f"{status}: it leads in a ring, or not to http or https, which is not followed", False
        )
    if status not in (200, 206, 416):
        raise UnreachableError(
            f"{status} {http.client.responses.get(status, '')}".strip(), status in PASSING
        )
    length = headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdecimal() else None
    if status != 200:
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or (status == 206 and found[1] is None):
            raise UnreachableError(f"{status} without a range that can be read", True)
        start, total = int(found[1] or 0), None if found[2] == "*" else int(found[2])
    return LogitsAdapter(
        status, start, total, _tag(headers), digest_of(headers) or digest, response
    )


def _tag(headers: Message) -> str | None:
    tag = headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _reason(error: Exception) -> UnreachableError:
    """Say in words why no answer came, and whether to ask again."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, UnreachableError):
        return cause
    if isinstance(cause, socket.gaierror):
        return UnreachableError("the name of the server is not known here", False)
    if isinstance(cause, ConnectionRefusedError):
        return UnreachableError("the server refused the connection", False)
    if isinstance(cause, TimeoutError):
        return UnreachableError("the server did not answer in time", True)
    passing = isinstance(
        cause, (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead)
    )
    return UnreachableError(" ".join(str(cause).split()) or type(cause).__name__, passing)


def read(answer: LogitsAdapter, size: int) -> bytes:
    """Read up to ``size`` bytes of the body, empty at its end.

    Raises
    ------
    UnreachableError
        If the connection was cut.
    """
    try:
        return answer.body.read(size)
    except (OSError, http.client.HTTPException) as error:
        word = (
            "the server fell silent"
            if isinstance(error, TimeoutError)
            else "the connection was cut"
        )
        raise UnreachableError(word, True) from error
