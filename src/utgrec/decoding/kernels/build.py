"""Compile `kernels.cpp` once for the machine it runs on, and open it.

The library lies in the cache folder (`$UTGREC_CACHE`, else ~/.cache/utgrec), named by its source,
and by the options and the processor, so a change of any of them compiles it anew; that takes some
seconds. Where it cannot be made there is none, and torch computes everything. Libraries of other
sources that nobody has opened for long are removed when a new one is made.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from utgrec import storage

log = logging.getLogger(__name__)
SOURCES = [
    Path(__file__).with_name(name)
    for name in (
        *("kernels.cpp", "attention.h", "products.h"),
        *("tiles.h", "lanes.h", "lanes512.h", "lanes256.h"),
    )
]
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
COMPILERS = ("g++", "clang++")
SWITCH = "UTGREC_NATIVE"
"""Environment variable; 0 leaves everything to torch."""
PATIENCE = 300  # seconds for the compiler
KEPT_S = 30 * 24 * 3600  # a library of another source stays for so long after it was last opened


@functools.cache
def open_library() -> ctypes.CDLL | None:
    """The compiled functions; None where they are switched off or cannot be made."""
    if os.environ.get(SWITCH) == "0" or platform.machine() != "x86_64":
        return None
    try:
        path = _compiled()
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)  # in use: see `_prune`
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("decoding without compiled kernels: %s", error)
        return None


def _compiled() -> Path:
    """The library, made unless it is there.

    Raises:
        OSError: no compiler, or a folder that cannot be written.
        SubprocessError: the compiler failed.
    """
    folder = storage.cache_folder() / "kernels"
    path = folder / f"{_name()}.so"
    if path.is_file():
        return path
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise OSError(f"no compiler; install one of {', '.join(COMPILERS)}")
    log.info("compiling the decoding kernels for this processor, once; it takes some seconds")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = folder / f".{path.name}.{os.getpid()}.partial"
    try:
        subprocess.run(
            [compiler, *OPTIONS, str(SOURCES[0]), "-o", str(partial)],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _prune(folder, path)
    return path


def _prune(folder: Path, made: Path) -> None:
    """Remove libraries of other sources, and what a killed compiler left, if long out of use.

    Other versions of the package, and other machines with the same home, may share the folder.
    What a process has opened stays usable to it after it was removed.
    """
    source = made.name.split("-")[0]
    for path in (*folder.glob("*.so"), *folder.glob(".*.partial")):
        with contextlib.suppress(OSError):  # somebody else removed it, or owns it
            if path.name.split("-")[0] != source and time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()


def _name() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), platform.processor())
    source = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES))
    machine = hashlib.sha256("\n".join([*OPTIONS, flags]).encode())
    return f"{source.hexdigest()[:16]}-{machine.hexdigest()[:16]}"
