"""Where a pretrained model comes from: the hub or a folder, checked before anything is loaded.

A base model is never copied into what UTGRec writes. It is named, and recognised by a fingerprint.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from utgrec import storage
from utgrec.errors import CorruptFile, MissingStage

# What a model's folder holds for us; other formats of the weights are never fetched or read.
PATTERNS_ALONE = ("*.json", "*.txt", "*.model", "*.jinja")
PATTERNS = ("*.safetensors", *PATTERNS_ALONE)
# Bytes read of every weight file for its fingerprint: 64 pieces, evenly spread.
PIECES, PIECE = 64, 4096


class Source(NamedTuple):
    """A base model on this machine."""

    folder: Path
    name: str  # as it was asked for: hub name or folder
    revision: str  # the commit on the hub; "" for a folder


def find_source(name: str, revision: str = "main", *, weights: bool = True) -> Source:
    """The folder of a model, fetched from the hub first if it is not one.

    Args:
        weights: whether they are needed; without, they are neither fetched nor checked.

    Raises:
        MissingStage: neither a folder nor a name on the hub, or the hub cannot be reached.
        CorruptFile: the folder is not whole.
    """
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        source = Source(folder, name, "")
    else:
        source = Source(*_fetch(name, revision, PATTERNS if weights else PATTERNS_ALONE))
    check_folder(source.folder, weights=weights)
    return source


def _fetch(name: str, revision: str, patterns: tuple[str, ...]) -> tuple[Path, str, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    # The hub's client reports a missing network as OSError, ValueError or an error of its own.
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise MissingStage(
            f"the model {name!r} (revision {revision}) is neither a folder here nor to be had from "
            f"the hub ({type(error).__name__}: {str(error).splitlines()[0]}); check the name and "
            "the network, or give the path of a folder that holds it"
        ) from error
    return folder, name, folder.name


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Refuse a folder that holds no model, or a model that was only half copied.

    Raises:
        MissingStage: there is no model.
        CorruptFile: a weight file is missing or cut short.
    """
    if not (folder / "config.json").is_file():
        raise MissingStage(f"{folder} holds no model (config.json is missing); check the path")
    for path in weight_files(folder) if weights else ():
        if not path.is_file():
            raise CorruptFile(
                f"{path} is missing, though the model's index names it: the model was copied or "
                "downloaded only in part; fetch it again"
            )
        _check_whole(path)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model.

    Raises:
        MissingStage: there are none.
        CorruptFile: the index that names them cannot be read.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise MissingStage(
            f"{folder} holds no weights (neither {single.name} nor {index.name}); other formats "
            "are not read: fetch the model again, or convert it with transformers' save_pretrained"
        )
    named = storage.read_json(index)
    try:
        return [folder / name for name in sorted(set(named["weight_map"].values()))]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{index} is no index of weights; fetch the model again") from error


def fingerprint_folder(folder: Path, weights: str = "") -> str:
    """Recognises a model: its configuration, the names and shapes of its weights, and samples.

    Every weight file is read at 64 places, not in full: seconds less for a model of several GB,
    and no two trained models agree there. `weights` is the weight file, if it has not one of the
    names that transformers gives.
    """
    digest = hashlib.sha256()
    config = storage.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise CorruptFile(f"{folder / 'config.json'} describes no model; fetch the model again")
    # What wrote it and from where says nothing about the model.
    for name in ("transformers_version", "_diffusers_version", "_name_or_path"):
        config.pop(name, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for path in [folder / weights] if weights else weight_files(folder):
        size = path.stat().st_size
        with open(path, "rb") as stream:
            header = stream.read(8 + _header_length(stream.read(8), path, size))
            digest.update(path.name.encode() + size.to_bytes(8, "little") + header)
            for piece in range(PIECES):
                stream.seek(piece * max(size - PIECE, 0) // (PIECES - 1))
                digest.update(stream.read(PIECE))
    return digest.hexdigest()


def _check_whole(path: Path) -> None:
    """Compare a weight file's size with what its header promises."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        length = _header_length(stream.read(8), path, size)
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            ends = [one["data_offsets"][1] for name, one in header.items() if name[0] != "_"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise CorruptFile(f"{path} is no safetensors file; fetch the model again") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise CorruptFile(
            f"{path} has {size} bytes, its header promises {expected}: it was copied or downloaded "
            "only in part; fetch the model again"
        )


def _header_length(start: bytes, path: Path, size: int) -> int:
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise CorruptFile(
            f"{path} is cut short or no safetensors file ({size} bytes); fetch the model again"
        )
    return length
