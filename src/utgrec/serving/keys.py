"""API keys: long random words, of which only the SHA-256 is kept, each with a role.

The file is JSON: {"keys": [{"name": "shop", "role": "read", "sha256": "…"}]}. A key has 256 random
bits, so that a plain hash is enough: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Literal, NamedTuple

from utgrec import storage
from utgrec.config import require
from utgrec.errors import CorruptFile, InputError

Role = Literal["read", "write"]
ROLES: tuple[Role, ...] = ("read", "write")


class Key(NamedTuple):
    """One key, without the word itself."""

    name: str
    role: Role  # write may do what read may
    sha256: str  # hex


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        InputError: no such file, or no key in it.
        CorruptFile: not a file of keys.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; make one with `utgrec key add {path} --name X`")
    values = storage.read_json(path)
    try:
        keys = tuple(Key(one["name"], one["role"], one["sha256"]) for one in values["keys"])
    except (KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is not a file of keys ({error!r}); make it anew") from error
    for key in keys:
        if key.role not in ROLES or not re.fullmatch("[0-9a-f]{64}", key.sha256):
            raise CorruptFile(f"{path}: key {key.name!r} has no known role or no hash; remove it")
    if not keys:
        raise InputError(f"{path} holds no key; make one with `utgrec key add {path} --name X`")
    return keys


def add_key(path: Path, name: str, role: Role) -> str:
    """Add a key to a file, which is made if need be, and return the word: it is not kept.

    Raises:
        BadConfig: the name is taken or empty.
    """
    keys = read_keys(path) if path.is_file() else ()
    require(bool(name.strip()), "a key needs a name, got an empty one")
    require(all(key.name != name for key in keys), f"{path} has a key {name!r}; choose another")
    word = secrets.token_urlsafe(32)
    made = Key(name, role, hashlib.sha256(word.encode()).hexdigest())
    storage.write_json(path, {"keys": [key._asdict() for key in (*keys, made)]})
    path.chmod(0o600)
    return word


def find_key(keys: tuple[Key, ...], word: str) -> Key | None:
    """The key that a caller's word belongs to."""
    digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()
    found = None
    for key in keys:  # all are compared, so that the time says nothing
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found
