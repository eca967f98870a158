"""Training on several devices of a machine: one process each, this one is the first and starts the others."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy

import evenslice
from evenslice.errors import BadInputError, one_line

HOST = "127.0.0.1"
GRACE_S = 60.0
PATIENCE = timedelta(
    days=7
)  # the other devices wait while the first looks at the validation slices
READY = b"ready\n"


class Ranks(ClusterEnvironment):  # type: ignore[misc]
    """Which of several devices a process trains on. Whatever a cluster's own variables say is not looked at.

    Attributes
    ----------
    rank, count
        Number of this device from 0, and how many there are.
    port
        On which their processes find each other.
    """

    def __init__(self, rank: int = 0, count: int = 1, port: int = 0) -> None:
        super().__init__()
        self.rank, self.count, self.port = rank, count, port

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts no processes."""
        return True

    @property
    def main_address(self) -> str:
        """The machine itself."""
        return HOST

    @property
    def main_port(self) -> int:
        """The port."""
        return self.port

    @staticmethod
    def detect() -> bool:
        """Never on its own."""
        return False

    def world_size(self) -> int:
        """Return how many devices there are."""
        return self.count

    def set_world_size(self, size: int) -> None:
        """Leave it as it is."""

    def global_rank(self) -> int:
        """Return the number of this device."""
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        """Leave it as it is."""

    def local_rank(self) -> int:
        """Return the number of this device."""
        return self.rank

    def node_rank(self) -> int:
        """Return 0: there is one machine."""
        return 0


def strategy_of(ranks: Ranks) -> Any:
    """Return how Lightning trains: gradients are averaged over the devices if there are several."""
    if ranks.count == 1:
        return "auto"
    # A static graph lets parts of a network stay unused, and says nothing of it.
    return DDPStrategy(static_graph=True, timeout=PATIENCE)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextmanager
def crew(job: Any, count: int) -> Iterator[Ranks]:
    """Start the processes of the devices after the first, and end them in any case.

    Parameters
    ----------
    job
        Called with its ranks by ``evenslice.learn.rank`` to open what it needs, gives what trains; sent pickled.
    count
        How many devices there are, the first included.

    Yields
    ------
    Ranks
        Of the first device.

    Raises
    ------
    BadInputError
        If one of the processes fails: what it says.
    """
    if count == 1:
        yield Ranks()
        return
    port, threads, alarm = free_port(), torch.get_num_threads(), _Alarm()
    torch.set_num_threads(max(1, threads // count))
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder) / f"{rank}.txt" for rank in range(1, count)]
        members = []
        try:
            for rank, file in enumerate(errors, 1):
                members.append(_Member(_packed(job, Ranks(rank, count, port)), file, alarm))
            for member in members:
                member.wait_until_ready()
            yield Ranks(0, count, port)
            for member in members:
                member.failure(GRACE_S)
        except BaseException as error:
            with contextlib.suppress(KeyboardInterrupt):
                alarm.off()
            patience = (
                GRACE_S if isinstance(error, RuntimeError) else 0.0
            )  # one that lost another hears of it first
            failures = [said for member in members if (said := member.failure(patience / 10))]
            if failures:
                raise BadInputError(failures[0]) from error
            raise
        finally:
            alarm.off()
            for member in members:
                member.end()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            torch.set_num_threads(threads)


def _packed(job: Any, ranks: Ranks) -> bytes:
    try:
        return pickle.dumps((job, ranks))
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise BadInputError(
            f"a volume cannot be handed to the processes of other devices ({error}), expected paths or arrays; give its path"
        ) from error


class _Alarm:
    """Interrupts the training here, once at most, and not when it is ending anyway."""

    def __init__(self) -> None:
        self._lock, self._on = threading.Lock(), True

    def ring(self) -> bool:
        """Interrupt, if nothing else did; say whether."""
        with self._lock:
            rings, self._on = self._on, False
            if rings:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return rings

    def off(self) -> None:
        """Ring no more."""
        with self._lock:
            self._on = False


class _Member:
    """A process of one device; when it fails, the training here is interrupted, and it ends when this process does."""

    def __init__(self, job: bytes, errors: Path, alarm: _Alarm) -> None:
        self._errors, self._alarm, self._ended = errors, alarm, threading.Event()
        found = str(Path(evenslice.__file__).parent.parent)
        paths = os.pathsep.join(part for part in (found, os.environ.get("PYTHONPATH")) if part)
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        with errors.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evenslice.learn.rank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | {"PYTHONPATH": paths} | threads,
            )
        pipe: IO[bytes] | None = self.process.stdin
        assert pipe is not None
        pipe.write(job)
        pipe.flush()
        threading.Thread(target=self._watch, daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait until the process has opened what it needs: one that fails before it meets the others would keep them waiting."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != READY:
            raise RuntimeError("a process did not get ready")

    def _watch(self) -> None:
        """Interrupt the training if the process fails; what does not hear that is waiting for it in the library, and is ended."""
        if self.process.wait() and self._alarm.ring() and not self._ended.wait(GRACE_S):
            print(
                f"evenslice: error: {one_line(self.failure(0) or '')}", file=sys.stderr, flush=True
            )
            os._exit(2)

    def failure(self, patience: float) -> str | None:
        """Return what the process says if it failed, waiting some seconds for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        if not self.process.returncode:
            return None
        lines = self._errors.read_text(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        return (
            said
            or f"the process of a device ended with {self.process.returncode}, expected it to train on; is there enough memory? go on with --resume"
        )

    def end(self) -> None:
        """End the process."""
        self._ended.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
