"""Faults at write operations: those below a folder are counted, and the n-th fails, or is the last thing that the process does.

Everything that evenslice writes goes to the disk through Python (zarr, tifffile, numpy, json, torch's state as bytes), so wrappers of ``open``
and of the functions of ``os`` see all of it; ``test_nothing_is_written_past_the_count`` compares them with what the disk holds in the end.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import threading
from pathlib import Path

CODES = {"ENOSPC": errno.ENOSPC, "full": errno.ENOSPC, "EIO": errno.EIO}
KINDS = ("crash", *CODES)
FREEING = {"unlink", "rmdir"}  # what does not fail on a full disk
SILENT = {
    "fsync",
    "close",
}  # to be killed before these leaves what it leaves to be killed before the next
REAL = {
    name: getattr(os, name)
    for name in [
        "open",
        "write",
        "fsync",
        "replace",
        "rename",
        "link",
        "mkdir",
        "unlink",
        "remove",
        "rmdir",
        "truncate",
    ]
}
REAL_OPEN = io.open


def can_fail(kind, name):
    """Whether a fault of this kind can happen at such an operation, and differs from that at the next one."""
    return name not in (
        SILENT if kind == "crash" else FREEING if kind in ("ENOSPC", "full") else ()
    )


class Injector:
    """Counts write operations below a folder, and makes one of them go wrong.

    Parameters
    ----------
    folder
        Where they count.
    kind
        ``crash``: the process is killed before the operation, in the middle of it if it writes bytes. ``ENOSPC``, ``EIO``: it
        fails once. ``full``: it fails, and so does everything after it that needs room. ``stop``: the process
        stops before it, until it is told to go on. Empty: nothing goes wrong.
    at
        Which operation, from 1.
    """

    def __init__(self, folder, kind="", at=0):
        self.folder, self.kind, self.at = os.path.realpath(folder), kind, at
        self.log, self.fired, self.written = [], False, 0
        self._lock = threading.Lock()

    def covers(self, path):
        path = _absolute(path)
        return path == self.folder or path.startswith(self.folder + os.sep)

    def operation(self, name, path, error_path=True):
        """Count an operation; fail, be killed, or return whether to be killed in the middle of it."""
        if not self.covers(path):
            return False
        with self._lock:
            self.log.append((name, os.path.relpath(_absolute(path), self.folder)))
            due = (
                bool(self.kind)
                and len(self.log) >= self.at
                and (self.kind == "full" or not self.fired)
            )
            if not due or not can_fail(self.kind, name):
                return False
            self.fired = True
        if self.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return False
        if self.kind == "crash":
            if name == "write":
                return True
            os.kill(os.getpid(), signal.SIGKILL)
        code = CODES[self.kind]
        raise (
            OSError(code, os.strerror(code), os.fsdecode(path))
            if error_path
            else OSError(code, os.strerror(code))
        )

    def write(self, path, data, write):
        if self.operation("write", path, error_path=False):
            view = memoryview(data).cast("B")
            write(view[: len(view) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        done = write(data)
        self.written += done if self.covers(path) else 0
        return done

    def install(self):
        """Replace what writes, for the rest of this process."""
        injector = self

        class Raw(io.FileIO):
            def write(self, data):
                return injector.write(self.name, data, super().write)

            def truncate(self, size=None):
                injector.operation("truncate", self.name, error_path=False)
                return super().truncate(size)

            def close(self):
                if self.closed:
                    return
                try:
                    injector.operation("close", self.name, error_path=False)
                finally:
                    super().close()

        def opened(
            file,
            mode="r",
            buffering=-1,
            encoding=None,
            errors=None,
            newline=None,
            closefd=True,
            opener=None,
        ):
            if isinstance(file, int) or not set(mode) & set("wax+") or not injector.covers(file):
                return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
            injector.operation("open", file)
            raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), opener=opener)
            if buffering == 0:
                return raw
            held = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return (
                held
                if "b" in mode
                else io.TextIOWrapper(held, encoding or "utf-8", errors, newline)
            )

        builtins.open = io.open = opened
        os.open = self._os_open
        os.write = lambda fd, data: self.write(_of(fd), data, lambda part: REAL["write"](fd, part))
        os.fsync = self._fsync
        for name, shown in (
            ("mkdir", "mkdir"),
            ("unlink", "unlink"),
            ("remove", "unlink"),
            ("rmdir", "rmdir"),
            ("truncate", "truncate"),
        ):
            setattr(os, name, self._of_one(name, shown))
        for name, shown in (("replace", "rename"), ("rename", "rename"), ("link", "link")):
            setattr(os, name, self._of_two(name, shown))
        for name in (
            "_USE_CP_SENDFILE",
            "_USE_CP_COPY_FILE_RANGE",
        ):  # copies that Python would not see
            if hasattr(shutil, name):
                setattr(shutil, name, False)

    def _os_open(self, path, flags, mode=0o777, *, dir_fd=None):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.operation("open", _joined(path, dir_fd))
        return REAL["open"](path, flags, mode, dir_fd=dir_fd)

    def _fsync(self, fd):
        self.operation("fsync", _of(fd), error_path=False)
        return REAL["fsync"](fd)

    def _of_one(self, name, shown):
        def wrapper(path, *args, **kwargs):
            place = _joined(path, kwargs.get("dir_fd"))
            if os.path.lexists(place) != (shown == "mkdir"):  # else it changes nothing
                self.operation(shown, place)
            return REAL[name](path, *args, **kwargs)

        return wrapper

    def _of_two(self, name, shown):
        def wrapper(source, target, **kwargs):
            self.operation(shown, target if self.covers(target) else source)
            return REAL[name](source, target, **kwargs)

        return wrapper


def _absolute(path):
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (a link stays a link)


def _of(fd):
    return str(Path(f"/proc/self/fd/{fd}").readlink()).removesuffix(" (deleted)")


def _joined(path, fd):
    return path if fd is None else Path(_of(fd), os.fsdecode(path))
