"""Swap two folders in one step, where the system can.

Linux has `renameat2` with RENAME_EXCHANGE, macOS `renamex_np` with RENAME_SWAP. Elsewhere, and on
file systems that cannot, nothing happens and the caller is told.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux
_RENAME_SWAP = 2  # macOS


def swap(one: Path, other: Path) -> bool:
    """Give each of two existing paths the other's content; False if the system cannot.

    Raises:
        OSError: the system can, but not with these paths (permissions, two file systems).
    """
    if sys.platform not in ("linux", "darwin"):
        return False
    library: Any = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if hasattr(library, "renamex_np"):
            code = library.renamex_np(*names, ctypes.c_uint(_RENAME_SWAP))
        else:
            here = (_AT_FDCWD, names[0], _AT_FDCWD, names[1])
            code = library.renameat2(*here, ctypes.c_uint(_RENAME_EXCHANGE))
    except AttributeError:  # a C library without it
        return False
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one))
