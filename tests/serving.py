"""A small web server on this machine that can misbehave as those out there do."""

import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Offer:
    """What is served at a path, and how.

    ``cuts``: after how many bytes the answer to the first, second, .. request is cut. ``statuses``: what the first, second, ..
    request is answered instead. ``if_range`` False: the entity tag asked for is not looked at. ``length`` False: no length is said.
    ``stall``: after so many bytes nothing more comes while the server runs.
    """

    body: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    reset: bool = False
    stall: int | None = None
    location: str | None = None
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


class Shelf(dict[str, Offer]):
    """What a server offers by path, and what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.address = ""
        self.stalled = threading.Event()
        self.closing = threading.Event()

    def put(self, path: str, body: bytes = b"", **how) -> str:
        """Offer something and return its address."""
        self[f"/{path}"] = Offer(body, **how)
        return f"{self.address}/{path}"


class _Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.shelf.asked.append((path, dict(self.headers.items())))
        offer = self.shelf.get(path)
        if offer is None or offer.statuses:
            return self._start(
                404 if offer is None else offer.statuses.pop(0), {"Content-Length": "0"}
            )
        if offer.location is not None:
            return self._start(
                302, {"Location": offer.location, "Content-Length": "0", **offer.headers}
            )
        tag = {"ETag": offer.etag} if offer.etag else {}
        asked = self.headers.get("Range", "")
        wanted = self.headers.get("If-Range")
        start = int(asked[6:-1]) if asked and offer.ranges else 0
        if offer.if_range and wanted is not None and wanted != offer.etag:
            start = 0
        total = len(offer.body)
        if start >= total > 0:
            return self._start(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
        range_ = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        length = {"Content-Length": str(total - start)} if offer.length else {}
        self._start(206 if start else 200, {**tag, **range_, **length, **offer.headers})
        stop = start + offer.cuts.pop(0) if offer.cuts else offer.stall or total
        self.wfile.write(offer.body[start:stop])
        if offer.stall is not None:
            self.shelf.stalled.set()
            self.shelf.closing.wait()
        if offer.reset and stop < total:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _start(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving():
    """Serve a shelf while this lasts."""
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"shelf": shelf}))
    server.handle_error = lambda *args: None  # a client that goes away is no failure of the test
    shelf.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield shelf
    finally:
        shelf.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
