"""What encodes the items that join a live catalogue: the run's own tokenizer.

Its codebooks are small and read on their own; the backbone is only read for the first new item.

Shapes: n items · L codes per item · D code dimension.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from safetensors import safe_open
from torch import Tensor

from utgrec import storage
from utgrec.config import from_dict
from utgrec.precision import own_device
from utgrec.serving.shared import share_module
from utgrec.tokenizer.pretrained import HEADS_FILE, STAGE, ItemTokenizer
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer

log = logging.getLogger(__name__)


class Coder(Protocol):
    """What turns new items into states, and knows the codebooks. Any thread may call it."""

    @property
    def quantizer(self) -> TreeQuantizer:
        """The codebooks."""

    def states(self, texts: Sequence[str], pictures: Sequence[Path | None]) -> Tensor:
        """States of n items, (n, L, D), float32."""


class RunCoder:
    """A run's tokenizer; each part is read when it is first needed, and says so in the log."""

    def __init__(
        self, folder: Path, weights: Path | None = None, backbone: str | None = None
    ) -> None:
        """Remember where things are.

        Args:
            weights: a folder that several processes use, to hold the weights in memory once.
            backbone: where the tokenizer's base model is, if not where it was in training.
        """
        self._folder, self._weights, self._backbone = folder, weights, backbone
        self._tokenizer: ItemTokenizer | None = None
        self._quantizer: TreeQuantizer | None = None
        self._lock = threading.Lock()

    @property
    def quantizer(self) -> TreeQuantizer:
        """The codebooks; neither the backbone nor the decoders are read for them."""
        with self._lock:
            if self._quantizer is None:
                self._quantizer = read_quantizer(self._folder)
            return self._quantizer

    def states(self, texts: Sequence[str], pictures: Sequence[Path | None]) -> Tensor:
        """States of n items, (n, L, D), float32."""
        tokenizer = self._opened()
        return tokenizer.states(tokenizer.read(texts, pictures))

    def _opened(self) -> ItemTokenizer:
        with self._lock:
            if self._tokenizer is None:
                log.info("reading the tokenizer, to encode what is new")
                started = time.monotonic()
                device = own_device()
                self._tokenizer = ItemTokenizer.from_pretrained(
                    self._folder, backbone=self._backbone, device=device
                )
                if self._weights is not None and device.type == "cpu":
                    share_module(self._tokenizer.model, self._weights)
                log.info("the tokenizer is there after %.1f s", time.monotonic() - started)
            return self._tokenizer


def read_quantizer(folder: Path) -> TreeQuantizer:
    """The codebooks of a finished tokenizer alone.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    quantizer = TreeQuantizer(from_dict(QuantizerConfig, manifest.config["quantizer"]))
    path = storage.check_file(folder, manifest, HEADS_FILE)
    start = "quantizer."
    with safe_open(path, framework="pt") as file:
        state = {
            name.removeprefix(start): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 - not a dict
            if name.startswith(start)
        }
    quantizer.load_state_dict(state)
    return quantizer.eval()
