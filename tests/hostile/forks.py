"""Commands in processes of their own, forked from one that has imported what they need: quick to start, free to be killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import evenslice.verbs.audit, evenslice.verbs.export, evenslice.segmentation.run, evenslice.study.run, evenslice.verbs.train
import evenslice.report.page, evenslice.report.tables, evenslice.learn.fit, evenslice.verbs.evaluate, segmentation_models_pytorch
import evenslice.verbs.inspect, evenslice.volume.tiff, evenslice.volume.zarr_reader, evenslice.volume.images, importlib.metadata
from evenslice.cli import app as cli
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.chdir(asked["folder"])
        sys.path.insert(0, asked["folder"])
        for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            os.dup2(os.open(os.path.join(asked["beside"], name), os.O_RDWR | os.O_CREAT), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        if asked["user"]:
            os.setgid(asked["user"]), os.setuid(asked["user"])
        code = 99
        try:
            cli.main(asked["words"])
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Command:
    """A command that runs."""

    def __init__(self, server: "Server", process: int, beside: Path) -> None:
        self._server, self.process, self._beside = server, process, beside

    def wait_for(self, *paths: Path | str, seconds: float = 60) -> None:
        """Wait until one of some paths is there (names may hold ``*``)."""
        end = time.monotonic() + seconds
        while not any(found for path in paths for found in Path().glob(str(path))):
            assert time.monotonic() < end, (paths, sorted(Path().iterdir()), self.err)
            time.sleep(0.005)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process, number)

    def code(self) -> int:
        """Wait for its end, and return how it exited; below 0 the signal that ended it."""
        return int(self._server.read())

    @property
    def out(self) -> str:
        """What it printed."""
        return (self._beside / "stdout").read_text()

    @property
    def err(self) -> str:
        """What it said on stderr."""
        return (self._beside / "stderr").read_text()


class Server:
    """Forks commands, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def start(self, *words: object, user: int = 0) -> Command:
        """Start a command in this folder, as another user if one is named."""
        self._count += 1
        beside = self._folder / str(self._count)
        beside.mkdir()
        asked = {
            "words": [str(word) for word in words],
            "folder": str(Path.cwd()),
            "beside": str(beside),
            "user": user,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        return Command(self, int(self.read()), beside)

    def read(self) -> str:
        """Return a line of its answer."""
        return self._process.stdout.readline()

    def end(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
