"""Loading the verbs, and torch with them, into a viewer that is up already."""

import sys
import threading
from importlib import import_module
from pathlib import Path

MAPS = Path("/proc/self/maps")


def keep_triton_out(maps: Path = MAPS) -> bool:
    """Keep triton from being imported where that would end the viewer; return whether it is kept out.

    The OpenGL of Mesa brings the library LLVM with it, triton brings another build of it, and loading the second one into the
    same process is a segmentation fault. torch takes a triton that cannot be imported as one that is not installed, and nothing
    here needs it. Where triton was there first all is well.
    """
    if "triton" in sys.modules:
        return sys.modules["triton"] is None
    try:
        found = "libLLVM" in maps.read_text(errors="replace")
    except OSError:  # not Linux
        return False
    if found:
        sys.modules["triton"] = None  # type: ignore[assignment]
    return found


def load_verbs() -> threading.Thread:
    """Load in the background what takes seconds, so that the first press of a button does not wait for it."""
    keep_triton_out()
    thread = threading.Thread(
        target=import_module, args=("evenslice.segmentation.run",), daemon=True
    )
    thread.start()
    return thread
