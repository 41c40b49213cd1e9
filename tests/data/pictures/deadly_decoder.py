"""A decoder that dies of some pictures; decoding processes import it by name."""

import os
import signal
from pathlib import Path

from utgrec.data.pictures.decode import store_picture
from utgrec.data.pictures.outcomes import Result


def decode_or_die(body: bytes, store: Path) -> Result:
    """Die as a decoder with a hole in it would."""
    if body.startswith(b"deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return store_picture(body, store, max_pixels=10**6, max_side=64)
