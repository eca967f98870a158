"""A small web server on this machine that can fail as those out there do."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Offer:
    """What is served at a path, and how.

    ``cuts``: after how many bytes the answer to the first, second, .. GET is cut. ``statuses``:
    what the first, second, .. request is answered instead. ``stall``: after so many bytes nothing
    more comes while the server runs.
    """

    body: bytes = b""
    stall: int | None = None
    location: str | None = None
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


class Shelf(dict[str, Offer]):
    """What a server offers by path, and which paths were asked for with GET."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
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

    def do_HEAD(self):
        self._start(self.shelf.get(self.path.partition("?")[0]))

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.shelf.asked.append(path)
        offer = self.shelf.get(path)
        if not self._start(offer):
            return
        stop = offer.cuts.pop(0) if offer.cuts else offer.stall
        self.wfile.write(offer.body[:stop])
        if offer.stall is not None:
            self.shelf.stalled.set()
            self.shelf.closing.wait()
        self.close_connection = True

    def _start(self, offer):
        """Send status and headers; return whether a body follows."""
        status = 404 if offer is None else offer.statuses.pop(0) if offer.statuses else 200
        headers = {} if offer is None else dict(offer.headers)
        if status == 200 and offer.location is not None:
            status, headers["Location"] = 302, offer.location
        headers["Content-Length"] = str(len(offer.body) if status == 200 else 0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        return status == 200


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
