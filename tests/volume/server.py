"""A folder on a loopback server: ranges of bytes, counted; answers that fail when told to."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """What ``serving`` gives: where it listens, what was asked for, what is to fail."""

    def __init__(self, content):
        self.content = content  # bytes of a path, or None
        self.address = ""
        self.read = []  # (path, first byte, bytes) of answers with a body
        self.faults = {}  # path: what the next answers are, "503", "drop" or "cut"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        served, path = self.server.served, self.path.lstrip("/")
        left = served.faults.get(path) or [""]
        fault = left.pop(0)
        data = served.content(path)
        if fault == "drop":
            self.close_connection = True
            return
        status = 503 if fault == "503" else 404 if data is None else 200
        data = data if status == 200 else b""
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        extra, low = {}, 0
        if span and status == 200:
            size = len(data)
            low = int(span[1]) if span[1] else size - int(span[2])
            high = min(int(span[2]) + 1, size) if span[1] and span[2] else size
            data, status = data[low:high], 206
            extra = {"Content-Range": f"bytes {low}-{high - 1}/{size}"}
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        if body and data:
            served.read.append((path, low, len(data)))  # before the reader has it and goes on
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
            self.close_connection = self.close_connection or fault == "cut"


@contextmanager
def serving(content):
    """Serve what ``content`` (a folder, or a function of the path) holds, on loopback."""

    def of_folder(path):
        file = content / path
        return file.read_bytes() if file.is_file() else None

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.served = Served(content if callable(content) else of_folder)
    server.served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
