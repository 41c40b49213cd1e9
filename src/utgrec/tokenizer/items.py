"""Everything about the items that never changes while the tokenizer trains, computed once.

Words become token ids, pictures become features of the frozen vision tower and latents of the
frozen codec. Items of several domains stand one after the other, in the order of the domains.

Shapes: N items · M picture tokens · G latents of a picture · C latent channels · H backbone width.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.config import require
from utgrec.progress import Progress, silent
from utgrec.tokenizer.backbone import Backbone, Prompts, token_ids
from utgrec.tokenizer.cache import RowCache
from utgrec.tokenizer.features import summary_width
from utgrec.tokenizer.latents import Codec
from utgrec.tokenizer.picture_reading import read_pictures
from utgrec.tokenizer.rows import ItemRows, Latents
from utgrec.tokenizer.shapes import round_up
from utgrec.tokenizer.workers import in_workers

log = logging.getLogger(__name__)
TEXTS_AT_ONCE = 2000
# Items are encoded in groups of like length, so that less than this share is padding.
PADDING = 0.1
# A process's items by which a group grows: few shapes, as for widths (see shapes.py), and enough
# work in a call.
STEP = 8


class ItemInputs(NamedTuple):
    """What the tokenizer reads of N items."""

    words: list[npt.NDArray[np.int64]]  # N arrays of token ids, cut at max_text_tokens
    features: ItemRows  # picture features of every item, rows of width F
    grids: npt.NDArray[np.int64]  # (N, 2), picture tokens in height and width; 0 without picture
    latents: Latents  # (pictures, G, C)
    latent_rows: npt.NDArray[np.int64]  # (N,), into latents; -1 without picture
    unreadable: list[int]  # items whose picture could not be read: they go by their words
    summary: Tensor  # (N, F), contents and company, see features.py

    def __len__(self) -> int:
        return len(self.words)

    def with_summary(self, summary: Tensor) -> "ItemInputs":
        """The same items with other features, (N, F)."""
        return ItemInputs(**{**self._asdict(), "summary": summary})


def read_items(
    texts: Sequence[str],
    pictures: Sequence[Path | None],
    backbone: Backbone,
    codec: Codec | None,
    max_text_tokens: int,
    progress: Progress = silent,
    *,
    cache: Path | None = None,
    kept: RowCache | None = None,
) -> ItemInputs:
    """Tokenize the words and encode the pictures of N items.

    A picture that cannot be read is logged and listed, and its item goes by its words.

    Args:
        codec: makes the latents that training rebuilds; None where nothing is trained.
        cache: folder that keeps what was computed of pictures; None keeps it in memory.
        kept: picture features that are looked up, where what is computed is not to be kept.

    Raises:
        BadConfig: there are pictures, and the backbone reads none.
    """
    words = read_words(texts, backbone, max_text_tokens)
    shown = [index for index, path in enumerate(pictures) if path is not None]
    require(
        not shown or backbone.family.reads_pictures or not backbone.wants_pictures,
        f"{len(shown)} of {len(pictures)} items have a picture, and the backbone "
        f"({backbone.model.config.model_type}) reads none; take one that does, or set "
        "pictures=False in its settings to go by words alone",
    )
    if not backbone.wants_pictures:
        pictures = [None] * len(words)
    seen = read_pictures(pictures, backbone, codec, progress, cache, kept)
    return ItemInputs(
        words=words,
        features=seen.features,
        grids=seen.grids,
        latents=seen.latents,
        latent_rows=seen.latent_rows,
        unreadable=seen.unreadable,
        summary=torch.zeros(len(words), summary_width(backbone.hidden_size)),
    )


def read_words(
    texts: Sequence[str], backbone: Backbone, max_text_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Token ids of N texts, cut at `max_text_tokens`."""
    family = backbone.family

    def read(piece: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        ids = token_ids(family, piece)
        return [np.array(one[:max_text_tokens], dtype=np.int64) for one in ids]

    if not family.reads_words and any(texts):
        log.warning("the backbone reads no words: items are told apart by their pictures alone")
    workers = backbone.settings.machine.workers if backbone.settings else 0
    if len(texts) <= 10 * TEXTS_AT_ONCE:  # done before workers have started
        workers = 0
    pieces = [texts[at : at + TEXTS_AT_ONCE] for at in range(0, len(texts), TEXTS_AT_ONCE)]
    return [ids for many in in_workers(read, pieces, workers) for ids in many]


def read_contents(items: ItemInputs, words: Tensor, lens: Tensor | None = None) -> Tensor:
    """The mean word vector and the mean picture feature of every item, zeros for none.

    Shapes: words (V, H), lens (2, H, W) → (N, 2W); without lens W is H.
    """
    parts = [torch.zeros(0, 2 * words.shape[1] if lens is None else 2 * lens.shape[2])]
    for first in range(0, len(items), 1024):
        part = contents_of(items, np.arange(first, min(first + 1024, len(items))), words)
        if lens is not None:
            shown, seen = part.chunk(2, dim=1)
            part = torch.cat([shown @ lens[0].cpu(), seen @ lens[1].cpu()], dim=1)
        parts.append(part)
    return torch.cat(parts)


def contents_of(items: ItemInputs, rows: npt.NDArray[np.int64], words: Tensor) -> Tensor:
    """The same for some items, all directions kept. Shapes: rows (n,), words (V, H) → (n, 2H)."""
    width = words.shape[1]
    chosen = [items.words[row] for row in rows]
    counts = torch.tensor([len(ids) for ids in chosen], dtype=torch.int64)
    ids = torch.from_numpy(np.concatenate([*chosen, np.zeros(0, np.int64)]))
    owner = torch.repeat_interleave(torch.arange(len(rows)), counts)
    vectors = words[ids.to(words.device)].float().cpu()
    sums = torch.zeros(len(rows), width).index_add_(0, owner, vectors)
    means = sums / counts.clamp(min=1)[:, None]
    return torch.cat([means, items.features.means(rows, width)], dim=1)


def build_prompts(
    items: ItemInputs, rows: npt.NDArray[np.int64], backbone: Backbone, code_length: int
) -> Prompts:
    """Lay out the prompts of some items, padded on the right. Shapes: rows (B,) → Prompts."""
    parts = [
        backbone.layout(items.words[row], (int(items.grids[row, 0]), int(items.grids[row, 1])))
        for row in rows
    ]
    lengths = np.array([len(part.tokens) + code_length for part in parts])
    size = (len(parts), round_up(int(lengths.max())))
    tokens = np.full(size, backbone.family.pad_token, dtype=np.int64)
    picture = np.zeros(size, dtype=bool)
    positions = np.zeros((3, *size), dtype=np.int64)
    for row, part in enumerate(parts):
        used = len(part.tokens)
        tokens[row, :used] = part.tokens
        picture[row, part.picture] = True
        positions[:, row, :used] = part.positions
        positions[:, row, used:] = part.next_position + np.arange(size[1] - used)
    return Prompts(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        lengths=torch.from_numpy(lengths),
        picture=torch.from_numpy(picture),
        features=items.features.take(rows),
        summary=items.summary[torch.from_numpy(rows)],
    )


def prompt_lengths(
    items: ItemInputs, backbone: Backbone, code_length: int
) -> npt.NDArray[np.int64]:
    """Tokens of every item's prompt, the code queries included, without padding: (N,)."""
    nothing = np.zeros(0, dtype=np.int64)
    shown = items.features.counts > 0
    words = np.array([len(ids) for ids in items.words], dtype=np.int64)
    lengths = words + items.features.counts + code_length
    for picture, grid in ((True, (1, 1)), (False, (0, 0))):
        if (shown == picture).any():
            frame = len(backbone.layout(nothing, grid).tokens) - int(picture)
            lengths = lengths + frame * (shown == picture)
    return lengths


def like_lengths(
    lengths: npt.NDArray[np.int64], count: int, at_once: int
) -> list[npt.NDArray[np.int64]]:
    """Cut N items into groups of like length, of which less than PADDING is padding if it can be.

    A batch is as wide as the next round number, so items below the same one are alike.

    Every one of `count` processes takes a share of every group, so all do the same calls in the
    same order. A share is of at most `at_once` items, if that is not 0.

    Shapes: (N,) → arrays that hold every place of 0 … N - 1 once.
    """
    order = np.argsort(lengths, kind="stable")
    total, most = len(order), at_once * count or len(order)
    step = min(STEP * count, most)
    groups, start = [], 0
    while start < total:
        end = min(start + step, total)
        while (wider := min(end + step, total)) > end and wider - start <= most:
            group = lengths[order[start:wider]]
            width, before = round_up(int(group[-1])), round_up(int(lengths[order[end - 1]]))
            if width > before and group.sum() < (1 - PADDING) * width * len(group):
                break
            end = wider
        # No process may be left without an item of a group: what is too small joins the last one.
        if total - end < count:
            end = total
        groups.append(order[start:end])
        start = end
    return groups
