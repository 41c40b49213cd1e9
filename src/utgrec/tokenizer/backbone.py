"""The model that reads an item: opened through transformers' Auto classes, never patched.

An item's prompt is `[picture] text instruction code-queries`; the hidden states of the code queries
are what the tokenizer quantises. The code queries are trained vectors of our own, so the model's
vocabulary stays as it is. The language-model head is never loaded. What differs from one kind of
model to the next is in `families/`.

Shapes: B items · S prompt tokens · L codes per item · H backbone width · M picture tokens ·
F width of what is kept of a picture token, at least H.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from utgrec.config import fingerprint, require
from utgrec.errors import BadImage
from utgrec.tokenizer import adapter
from utgrec.tokenizer.backbone_config import MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.backbone_loading import load_model, load_processors, speed_up
from utgrec.tokenizer.backbone_source import check_folder, fingerprint_folder
from utgrec.tokenizer.families.family import (
    WITH_IMAGE,
    WITHOUT_IMAGE,
    Family,
    Prompt,
    Read,
    at_places,
)

__all__ = ["WITHOUT_IMAGE", "WITH_IMAGE", "Backbone", "PictureFeatures", "Prompts", "open_picture"]

CPU = torch.device("cpu")


class Prompts(NamedTuple):
    """A padded batch of prompts; padding is on the right, where a causal model cannot see it."""

    tokens: Tensor  # (B, S), int64
    positions: Tensor  # (3, B, S), int64: time, height and width as Qwen2-VL counts them
    lengths: Tensor  # (B,), tokens that are not padding, the L code queries included
    picture: Tensor  # (B, S), bool, where picture features stand
    features: Tensor  # (M, F), picture features of the batch in reading order
    summary: Tensor  # (B, F), see features.py

    def to(self, device: torch.device) -> "Prompts":
        """The same prompts on another device."""
        return Prompts(
            tokens=self.tokens.to(device),
            positions=self.positions.to(device),
            lengths=self.lengths.to(device),
            picture=self.picture.to(device),
            features=self.features.to(device),
            summary=self.summary.to(device),
        )


class PictureFeatures(NamedTuple):
    """What the frozen vision tower makes of some pictures."""

    features: Tensor  # (M, F), one row per picture token, one picture after the other
    grids: npt.NDArray[np.int64]  # (pictures, 2), height and width in picture tokens


class Backbone(nn.Module):
    """A model without its head, with its text tokenizer and picture processor."""

    def __init__(
        self,
        folder: Path,
        settings: PretrainedBackboneConfig | None = None,
        *,
        adapter_folder: Path | None = None,
        processors: Path | None = None,
        name: str = "",
        revision: str = "",
        device: torch.device = CPU,
    ) -> None:
        """Open a transformers folder (configuration, weights, tokenizer, processor).

        Args:
            settings: how a pretrained model is used: its own weights stay as they are, adapters
                are trained. None is a small model of our own, whose language model is trained.
            adapter_folder: adapters to go on from, instead of new ones.
            processors: where tokenizer and picture processor are, if not beside the model.
            name: what the base model is called in the adapter's folder.
            revision: the commit it has on the hub.
            device: where it will be, which decides the type of its weights if they are "auto".

        Raises:
            MissingStage: there is no model in the folder.
            CorruptFile: the model is not whole, or its weights are for another architecture.
            BadConfig: a kind of model that cannot read items.
        """
        super().__init__()
        check_folder(folder)
        self.settings = settings
        self.revision = revision
        self.fingerprint = fingerprint_folder(folder)
        machine = settings.machine if settings else MachineSettings()
        family, self.model = load_model(
            folder,
            settings.weights_dtype(device) if settings else torch.float32,
            machine.attention,
        )
        words, pictures = load_processors(processors or folder, family, settings)
        self.family: Family = family(self.model, words, pictures)
        self.trained_layers = self.family.trained
        for part in self.family.frozen:
            part.requires_grad_(False)
        self._adapter: Any = None
        if settings is not None:
            self.model.requires_grad_(False)
            if family.reads_words:
                self._adapt(settings, adapter_folder, name or str(folder))
        speed_up(self.family.language_model, machine)
        self._compiled = machine.compile

    def _adapt(self, settings: PretrainedBackboneConfig, folder: Path | None, name: str) -> None:
        require(
            self.embeddings.shape[1] == self.hidden_size,
            f"the model's word vectors have width {self.embeddings.shape[1]}, its states "
            f"{self.hidden_size}; such a model (ALBERT is one) cannot read code queries",
        )
        if folder is not None:
            self._adapter = (adapter.open_adapter(self.family, folder, trained=True),)
        elif settings.lora is not None:
            self._adapter = (adapter.add_adapter(self.family, settings.lora, name),)

    @property
    def text_tokenizer(self) -> Any:
        """The model's text tokenizer."""
        return self.family.text_tokenizer

    @property
    def picture_processor(self) -> Any:
        """The model's picture processor; None if it reads no pictures."""
        return self.family.picture_processor

    @property
    def wants_pictures(self) -> bool:
        """Whether pictures are to be read, which its family may not be able to."""
        return self.settings is None or self.settings.pictures

    def describe(self) -> dict[str, Any]:
        """Everything that picture features depend on, beside the picture."""
        shown = self.picture_processor
        return {
            # A model of our own is trained, but for its vision tower: that alone counts.
            "model": self.fingerprint if self.settings else digest(self.family.frozen),
            "family": type(self.family).__name__,
            "processor": fingerprint(json.loads(shown.to_json_string())) if shown else "",
        }

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, H."""
        return self.family.hidden_size

    @property
    def feature_width(self) -> int:
        """Width of what is kept of a picture token, F."""
        return self.family.feature_width

    @property
    def feature_dtype(self) -> torch.dtype:
        """Type of picture features: that of the model's own weights."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def embeddings(self) -> Tensor:
        """The token embedding matrix, (V, H)."""
        return self.family.embeddings

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of plain texts; what looks like a special token in them is plain text."""
        return token_ids(self.family, texts)

    def frame(self, *, picture: bool) -> tuple[list[int], list[int]]:
        """Token ids before and after an item's words; the picture's tokens come in between."""
        return self.family.frame(picture=picture)

    def layout(self, words: npt.NDArray[np.int64], grid: tuple[int, int]) -> Prompt:
        """Lay out one item: `grid` is height and width in picture tokens, zeros for no picture."""
        return self.family.layout(words, grid)

    @torch.no_grad()
    def picture_features(self, pictures: Sequence[Image.Image]) -> PictureFeatures:
        """Features of some pictures from the frozen vision tower."""
        return self.processed_features(self.family.process(pictures))

    @torch.no_grad()
    def processed_features(self, processed: dict[str, Tensor]) -> PictureFeatures:
        """The same from pixels that `family.process` made, maybe in another process."""
        device = self.device
        features = self.family.picture_features(
            {name: value.to(device) for name, value in processed.items()}
        )
        return PictureFeatures(features.to(self.feature_dtype), self.family.grids(processed))

    def forward(self, prompts: Prompts, queries: Tensor) -> Tensor:
        """Hidden states of the code queries. Shapes: prompts, (B, L, H) or (L, H) → (B, L, H)."""
        embedded = self.family.embed(prompts.tokens)  # (B, S, H)
        if embedded.is_leaf:  # frozen words, which activation checkpointing marks as trained
            embedded = embedded.detach()
        dtype, width, device = embedded.dtype, embedded.shape[-1], embedded.device
        embedded[prompts.picture] = prompts.features[:, :width].to(dtype)
        length = queries.shape[-2]
        places = prompts.lengths[:, None] - length + torch.arange(length, device=device)  # (B, L)
        rows = torch.arange(len(places), device=device)[:, None]
        embedded[rows, places] = queries.to(dtype)
        mask = None
        if not self.family.causal:
            columns = torch.arange(embedded.shape[1], device=device)
            mask = (columns < prompts.lengths[:, None]).long()  # (B, S)
        read = Read(prompts.positions, prompts.picture, mask)
        if self.training or torch.is_grad_enabled() or self._compiled:
            return at_places(self.family.run(embedded, prompts.features, read), places)
        return self.family.run_at(embedded, prompts.features, read, places)  # (B, L, H)

    # ------------------------------------------------------------------------------------- keeping

    def base_names(self) -> frozenset[str]:
        """Names in the state dictionary of what is read from the base model again, never kept."""
        if self.settings is None:
            return frozenset()
        trained = {name for name, value in self.named_parameters() if value.requires_grad}
        return frozenset(
            name
            for name in self.state_dict()
            if name.startswith("model.") and name not in trained and ".lora_" not in name
        )

    def save(self, folder: Path) -> None:
        """Write what is needed beside the base model; a model of our own is written in full."""
        if self.settings is None:
            self.model.save_pretrained(folder / "backbone")
            self.save_processors(folder / "backbone")
            return
        if self._adapter is not None:
            adapter.save_adapter(self._adapter[0], folder / "adapter")
        self.save_processors(folder / "processor")

    def save_processors(self, folder: Path) -> None:
        """Write the text tokenizer and the picture processor."""
        if self.family.reads_words:
            self.text_tokenizer.save_pretrained(folder)
        if self.picture_processor is not None:
            self.picture_processor.save_pretrained(folder)


def digest(parts: Sequence[nn.Module]) -> str:
    """Recognises small modules by all of their weights."""
    found = hashlib.sha256()
    for part in parts:
        for name, value in part.state_dict().items():
            found.update(f"{name} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def token_ids(family: Family, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of plain texts; what looks like a special token in them is plain text."""
    if not family.reads_words:
        return [[] for _ in texts]
    encoded = family.text_tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def open_picture(path: Path, max_pixels: int = 40_000_000) -> Image.Image:
    """A picture as RGB, turned as its EXIF data say.

    Raises:
        BadImage: unreadable, or more than `max_pixels`.
    """
    from PIL import ImageOps

    try:
        refuse_pipes(path)
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise BadImage(
                    f"{path} has {image.width}×{image.height} pixels; at most {max_pixels} are "
                    "read: make it smaller, or raise the limit"
                )
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except BadImage:
        raise
    except Exception as error:  # decoders raise nearly every kind of error on broken bytes
        raise BadImage(
            f"{path} cannot be read as a picture ({error}); replace it, or prepare the domain again"
        ) from error


def refuse_pipes(path: Path) -> None:
    """Refuse what is there and no file: to open a pipe would wait for somebody to write to it.

    Raises:
        OSError: it is no file.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a file")
