"""What is done with the files of pictures: hashed, opened and resized in workers, then computed.

Nothing here knows of a cache. What cannot be read is told, and stops nothing.

Shapes: M picture tokens · F width of features · G latents of a picture · C channels.
"""

import hashlib
import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from utgrec.errors import BadImage
from utgrec.tokenizer.backbone import Backbone, open_picture, refuse_pipes
from utgrec.tokenizer.latents import Codec
from utgrec.tokenizer.workers import in_workers

log = logging.getLogger(__name__)
AT_ONCE = 64
Ints = npt.NDArray[np.int64]


class Opened(NamedTuple):
    """A piece of work from a worker: pixels for the vision tower and for the codec."""

    good: list[int]  # positions in the piece that could be read
    pixels: dict[str, Tensor]  # for the vision tower; empty if not asked
    squares: Tensor | None  # for the codec
    problems: list[str]


class Computed(NamedTuple):
    """A piece of work that is done."""

    good: list[int]
    grids: Ints  # (pictures, 2)
    features: Tensor  # (M, F)
    latents: Tensor  # (pictures·G, C)


class Piece(NamedTuple):
    """Pictures that are computed together."""

    paths: list[Path]
    features: bool  # whether these are wanted
    latents: bool


class Reader:
    """What workers do, and what is done with what they give."""

    def __init__(self, backbone: Backbone, codec: Codec | None) -> None:
        self.backbone, self.codec, self.process = backbone, codec, backbone.family.process

    @property
    def workers(self) -> int:
        """Processes that open pictures; 0 does it in this one."""
        settings = self.backbone.settings
        return settings.machine.workers if settings else 0

    def tokens(self, height: int, width: int) -> int:
        """Picture tokens of a picture of so many pixels; 0 of one that the model will refuse."""
        try:
            return self.backbone.family.count_tokens(height, width)
        except ValueError:
            return 0

    def open(self, piece: Piece) -> Opened:
        """Decode and resize; touches no weights."""
        good, pictures, problems = [], [], []
        for number, path in enumerate(piece.paths):
            try:
                pictures.append(open_picture(path))
                good.append(number)
            except BadImage as error:
                problems.append(str(error))
        pixels: dict[str, Tensor] = {}
        if pictures and piece.features:
            try:
                pixels = self.process(pictures)
            except Exception:  # of some picture; which one, the model's processor does not say
                fit = self._fit(pictures, [piece.paths[number] for number in good], problems)
                good, pictures = [good[at] for at in fit], [pictures[at] for at in fit]
                pixels = self.process(pictures) if pictures else {}
        codec = self.codec if piece.latents else None
        squares = codec.prepare(pictures) if codec and pictures else None
        return Opened(good, pixels, squares, problems)

    def _fit(
        self, pictures: list[Image.Image], paths: list[Path], problems: list[str]
    ) -> list[int]:
        """Which pictures the model takes; some processors refuse very thin ones, for instance."""
        fit = []
        for at, (picture, path) in enumerate(zip(pictures, paths, strict=True)):
            try:
                self.process([picture])
                fit.append(at)
            except Exception as error:  # whatever a processor raises
                problems.append(f"{path} cannot be read by the model ({error}); replace it")
        return fit

    def compute(self, opened: Opened) -> Computed:
        """Features and latents of what was opened."""
        for problem in opened.problems:
            log.warning("%s", problem)
        width, dtype = self.backbone.feature_width, self.backbone.feature_dtype
        features = torch.zeros(0, width, dtype=dtype)
        grids = np.zeros((len(opened.good), 2), dtype=np.int64)
        if opened.pixels:
            seen = self.backbone.processed_features(opened.pixels)
            features, grids = seen.features.cpu(), seen.grids
        latents = torch.zeros(0, self.codec.channels if self.codec else 1)
        if opened.squares is not None and self.codec is not None:
            latents = self.codec.encode_prepared(opened.squares).flatten(0, 1).cpu()
        return Computed(opened.good, grids, features, latents)


def look_at(paths: list[Path], reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Hash, height and width of picture files, one after the other."""
    pieces = [paths[at : at + AT_ONCE] for at in range(0, len(paths), AT_ONCE)]
    for looked in in_workers(_look, pieces, reader.workers):
        yield from looked


def _look(paths: list[Path]) -> list[tuple[bytes, int, int]]:
    """Hash, height and width of picture files; an empty hash for what is no picture at all."""
    found = []
    for path in paths:
        try:
            refuse_pipes(path)
            data = path.read_bytes()
            with Image.open(BytesIO(data)) as image:
                width, height = image.size
            found.append((hashlib.sha256(data).digest(), height, width))
        except Exception as error:  # decoders raise nearly every kind of error on broken bytes
            log.warning("%s cannot be read as a picture (%s)", path, error)
            found.append((b"", 0, 0))
    return found
