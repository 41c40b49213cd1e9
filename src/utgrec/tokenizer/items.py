"""Everything about the items that never changes while the tokenizer trains, computed once.

Words become token ids, pictures become features of the frozen vision tower and latents of the
frozen codec. Items of several domains stand one after the other, in the order of the domains.

Shapes: N items · M picture tokens · G latents of a picture · C latent channels · H backbone width.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.errors import BadImage
from utgrec.progress import Progress, silent
from utgrec.tokenizer.backbone import Backbone, Prompts, open_picture
from utgrec.tokenizer.latents import PatchPCA
from utgrec.tokenizer.shapes import round_up

log = logging.getLogger(__name__)
PICTURES_AT_ONCE = 64


class ItemInputs(NamedTuple):
    """What the tokenizer reads of N items."""

    words: list[npt.NDArray[np.int64]]  # N arrays of token ids, cut at max_text_tokens
    features: Tensor  # (M, H), picture features of all items
    feature_offsets: npt.NDArray[np.int64]  # (N + 1,), into features
    grids: npt.NDArray[np.int64]  # (N, 2), picture tokens in height and width; 0 without picture
    latents: Tensor  # (pictures, G, C)
    latent_rows: npt.NDArray[np.int64]  # (N,), into latents; -1 without picture
    unreadable: list[int]  # items whose picture could not be read: they go by their words
    summary: Tensor  # (N, F), contents and company, see features.py

    def __len__(self) -> int:
        return len(self.words)

    def with_summary(self, summary: Tensor) -> "ItemInputs":
        """The same items with other features, (N, F)."""
        return ItemInputs(**{**self._asdict(), "summary": summary})

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Words and picture tokens of every item, (N,): what decides how long a prompt is."""
        words = np.array([len(ids) for ids in self.words], dtype=np.int64)
        return words + np.diff(self.feature_offsets)


def read_items(
    texts: Sequence[str],
    pictures: Sequence[Path | None],
    backbone: Backbone,
    codec: PatchPCA,
    max_text_tokens: int,
    progress: Progress = silent,
) -> ItemInputs:
    """Tokenize the words and encode the pictures of N items.

    A picture that cannot be read is logged and listed, and its item goes by its words.
    """
    words = [np.array(ids[:max_text_tokens], dtype=np.int64) for ids in backbone.token_ids(texts)]
    count = len(words)
    grids = np.zeros((count, 2), dtype=np.int64)
    latent_rows = np.full(count, -1, dtype=np.int64)
    features: list[Tensor] = []
    latents: list[Tensor] = []
    unreadable: list[int] = []
    with_picture = [index for index, path in enumerate(pictures) if path is not None]
    for start in range(0, len(with_picture), PICTURES_AT_ONCE):
        indices, opened = [], []
        for index in with_picture[start : start + PICTURES_AT_ONCE]:
            try:
                opened.append(open_picture(Path(str(pictures[index]))))
                indices.append(index)
            except BadImage as error:
                log.warning("%s", error)
                unreadable.append(index)
        if opened:
            seen = backbone.picture_features(opened)
            latent_rows[indices] = np.arange(len(indices)) + sum(len(part) for part in latents)
            features.append(seen.features)
            grids[indices] = seen.grids
            latents.append(codec.encode(opened))
        progress(
            "Reading pictures", min(start + PICTURES_AT_ONCE, len(with_picture)), len(with_picture)
        )
    width, config = backbone.hidden_size, codec.config
    empty_latents = torch.zeros(0, config.grid, config.channels)
    return ItemInputs(
        words=words,
        features=torch.cat(features) if features else torch.zeros(0, width),
        feature_offsets=np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64),
        grids=grids,
        latents=torch.cat(latents) if latents else empty_latents,
        latent_rows=latent_rows,
        unreadable=unreadable,
        summary=torch.zeros(count, 4 * width),
    )


def read_contents(items: ItemInputs, embeddings: Tensor) -> Tensor:
    """The mean word vector and the mean picture feature of every item, zeros for none: (N, 2H)."""

    def means(values: Tensor, lengths: npt.NDArray[np.int64]) -> Tensor:
        owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
        sums = torch.zeros(len(lengths), embeddings.shape[1]).index_add_(0, owner, values)
        return sums / torch.from_numpy(lengths).clamp(min=1)[:, None]

    words = torch.from_numpy(np.concatenate([*items.words, np.zeros(0, np.int64)]))
    return torch.cat(
        [
            means(embeddings[words], np.array([len(ids) for ids in items.words])),
            means(items.features, np.diff(items.feature_offsets)),
        ],
        dim=1,
    )


def build_prompts(
    items: ItemInputs, rows: npt.NDArray[np.int64], backbone: Backbone, code_length: int
) -> Prompts:
    """Lay out the prompts of some items, padded on the right. Shapes: rows (B,) → Prompts."""
    parts = [_prompt(items, int(row), backbone) for row in rows]
    lengths = np.array([len(part.tokens) + code_length for part in parts])
    size = (len(parts), round_up(int(lengths.max())))
    tokens = np.full(size, backbone.text_tokenizer.pad_token_id, dtype=np.int64)
    picture = np.zeros(size, dtype=bool)
    positions = np.zeros((3, *size), dtype=np.int64)
    for row, part in enumerate(parts):
        used = len(part.tokens)
        tokens[row, :used] = part.tokens
        picture[row, part.picture] = True
        positions[:, row, :used] = part.positions
        positions[:, row, used:] = part.next_position + np.arange(size[1] - used)
    offsets = items.feature_offsets
    pieces = [items.features[offsets[row] : offsets[row + 1]] for row in rows]
    return Prompts(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        lengths=torch.from_numpy(lengths),
        picture=torch.from_numpy(picture),
        features=torch.cat(pieces),
        summary=items.summary[torch.from_numpy(rows)],
    )


def by_length(
    items: ItemInputs, rows: npt.NDArray[np.int64], size: int
) -> Iterable[npt.NDArray[np.int64]]:
    """Cut rows into batches of similar prompt length, so that little is padding."""
    order = rows[np.argsort(items.lengths[rows], kind="stable")]
    return (order[start : start + size] for start in range(0, len(order), size))


class _Prompt(NamedTuple):
    """One prompt before the code queries."""

    tokens: npt.NDArray[np.int64]  # (S,)
    positions: npt.NDArray[np.int64]  # (3, S)
    picture: slice  # where the picture tokens stand
    next_position: int  # position of the first code query


def _prompt(items: ItemInputs, row: int, backbone: Backbone) -> _Prompt:
    height, width = (int(side) for side in items.grids[row])
    before, after = backbone.frame(picture=height > 0)
    start, pad, end = backbone.picture_tokens
    lead = [*before, start] if height else before
    tail = [*([end] if height else []), *items.words[row].tolist(), *after]
    tokens = np.array([*lead, *[pad] * (height * width), *tail], dtype=np.int64)
    positions = np.empty((3, len(tokens)), dtype=np.int64)
    shown = slice(len(lead), len(lead) + height * width)
    positions[:, : shown.start] = np.arange(shown.start)
    # Qwen2-VL counts a picture's tokens by row and column; words go on after the larger side.
    grid_rows, grid_columns = np.divmod(np.arange(height * width), max(width, 1))
    positions[0, shown] = shown.start
    positions[1, shown] = shown.start + grid_rows
    positions[2, shown] = shown.start + grid_columns
    resume = shown.start + max(height, width)
    positions[:, shown.stop :] = resume + np.arange(len(tokens) - shown.stop)
    return _Prompt(tokens, positions, shown, resume + len(tokens) - shown.stop)
