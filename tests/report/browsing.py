"""A headless Chromium led through its debugging pipe: real keys, every message kept."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NEEDS_CHROMIUM = [
    pytest.mark.ui,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --hide-scrollbars
--remote-debugging-pipe"""
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Space": (" ", 32, " "),
    "Tab": ("Tab", 9, ""),
    "Down": ("ArrowDown", 40, ""),
    "Up": ("ArrowUp", 38, ""),
}
PATIENCE_S = 60


class Browser:
    """One Chromium with one page; close it when done."""

    def __init__(self, profile):
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        chromium = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(read), str(write), *chromium],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._number, self._buffer, self.seen, self._session = 0, b"", [], None
        found = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in found if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def close(self):
        self._session = None
        self.call("Browser.close")
        self._process.wait(PATIENCE_S)
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **values):
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": values}
        asked |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        answer = self._wait(lambda one: one.get("id") == asked["id"])
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width=1240, height=900, scripts=True):
        """Open a page of the disk and wait until it is there."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.seen.clear()
        self.call("Page.navigate", url=path.as_uri())
        if not any(one.get("method") == "Page.loadEventFired" for one in self.seen):
            self._wait(lambda one: one.get("method") == "Page.loadEventFired")

    def complaints(self):
        """Return what the console, the log and uncaught errors said since the page was opened."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        self.ask("1")
        return [one for one in self.seen if one.get("method") in kinds]

    def ask(self, expression):
        """Evaluate JavaScript and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, name):
        """Press and let go of a key."""
        key, code, text = KEYS[name]
        about = {"key": key, "code": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def write(self, text):
        """Type text into what has the focus, a key a letter."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", key=letter, text=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def picture(self, path, **values):
        """Write a picture of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, **values)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _wait(self, wanted):
        end = time.monotonic() + PATIENCE_S
        while True:
            while b"\0" not in self._buffer:
                assert time.monotonic() < end, "Chromium does not answer"
                if select.select([self._in], [], [], 1)[0]:
                    part = os.read(self._in, 1 << 16)
                    assert part, "Chromium ended"
                    self._buffer += part
            head, _, self._buffer = self._buffer.partition(b"\0")
            one = json.loads(head)
            if wanted(one):
                return one
            self.seen.append(one)
