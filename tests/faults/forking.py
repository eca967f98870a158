"""The command line in forked processes: nothing is imported again, so that thousands of runs with a fault each take minutes."""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from faults.injecting import Injector

SLOW_TO_LOAD = [
    "zarr",
    "numcodecs.zarr3",
    "yaozarrs.v05",
    "timm",
    "segmentation_models_pytorch",
    "torchvision",
    "PIL.Image",
    "multiprocessing.synchronize",
    "torch.utils.serialization",
    "importlib.resources.readers",
    "evenslice.cli.app",
    "evenslice.segmentation.run",
    "evenslice.segmentation.views",
    "evenslice.verbs.train",
    "evenslice.study.run",
    "evenslice.verbs.evaluate",
    "evenslice.learn.fit",
    "evenslice.learn.recipe",
    "evenslice.learn.preload",
    "evenslice.learn.job",
    "evenslice.report.run_pages",
    "evenslice.report.study_page",
    "evenslice.report.page",
    "evenslice.report.tables",
    "evenslice.volume.zarr_reader",
    "evenslice.volume.zarr_writer",
    "evenslice.volume.tiff",
    "evenslice.model.onnx_file",
    "scipy.ndimage",
]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Exit code or the negative number of a signal, what it said, the write operations that it began, and how many bytes it wrote that
    were not seen.
    """

    code: int
    said: str
    operations: tuple = ()
    unseen: int = 0


def forked(folder, words, kind="", at=0, before=None):
    """Run the command line, or a function, in a folder, with a fault at a write operation; ``before`` is called in the process first."""
    return begun(folder, words, kind, at, before)()


def begun(folder, words, kind="", at=0, before=None):
    """Start such a run; return what waits for its end. The number of its process is its attribute ``pid``."""
    told, said = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed by what waits)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forks beside threads: pytest-xdist has some, which do not write here
        pid = os.fork()
    if pid == 0:
        _child(folder, words, (kind, at), before, told, said)

    def wait():
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with told, said:
            told.seek(0), said.seek(0)
            text = said.read().decode(errors="replace")
            if code != 0:  # it did not get to tell
                return Outcome(code, text)
            found = json.loads(told.read())
        return Outcome(found["code"], text, tuple(map(tuple, found["operations"])), found["unseen"])

    wait.pid = pid
    return wait


def _child(folder, words, fault, before, told, said):
    code = 70
    try:
        import numpy as np
        import torch

        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.dup2(said.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["evenslice"]
        torch.manual_seed(0), np.random.seed(0)
        os.chdir(folder)
        if before is not None:
            before()
        injector = Injector(folder, *fault)
        injector.install()
        first = _bytes_written()
        code = _exit_of(words)
        sys.stderr.flush()
        unseen = _bytes_written() - first - injector.written
        found = {"code": code, "operations": injector.log, "unseen": unseen}
        os.write(told.fileno(), json.dumps(found).encode())
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _bytes_written():
    """Return how many bytes this process gave to the system to write, by whatever means but mapped memory."""
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def _exit_of(words):
    from evenslice.cli import app as cli
    from evenslice.cli.output import print_error, reason_of

    try:
        if callable(words):
            words()
            return 0
        cli.main([str(word) for word in words])
    except Exception as error:
        print_error(reason_of(error))
        return 2
    except SystemExit as stop:
        return stop.code
    return -999


def load_what_is_slow_to_load():
    """Import here what runs import, so that none of them need; nothing is computed here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SLOW_TO_LOAD:
            importlib.import_module(name)
        importlib.import_module("PIL.Image").preinit()
