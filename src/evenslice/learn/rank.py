"""The process of one device after the first, ``python -m evenslice.learn.rank``: its job comes by the standard input."""

import os
import pickle
import signal
import sys
import threading
import traceback

from evenslice.errors import BadInputError
from evenslice.learn.ranks import READY


def main() -> None:
    """Do the job, and end with the process that gave it, whatever ended that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, ranks = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        train = job(ranks)
        os.write(sys.stdout.fileno(), READY)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads on
        train()
    except BadInputError as error:
        print(error, file=sys.stderr)
        code = 2
    except BaseException:
        print(traceback.format_exc(), file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
