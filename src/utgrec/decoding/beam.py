"""Beam search over a catalogue's trie: the k items that a model gives the highest probability.

The score of an item is the sum of the log-probabilities of its codes, each over the whole
vocabulary. Only nodes with an allowed item below them are entered, so every beam ends in an item.

Shapes: B users · S history tokens · W beams · C children of a node (padded) · N items · L codes.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from utgrec.decoding.filters import NO_ITEM, AllowedItems, Exclusions
from utgrec.decoding.trie import CodeTrie
from utgrec.errors import InputError
from utgrec.recommender.vocabulary import PAD, Vocabulary

State = TypeVar("State")


class Step(NamedTuple, Generic[State]):
    """What a model answers to one step of decoding."""

    log_probs: Tensor  # (B, W, count), float32
    state: State  # for the next step


class BeamModel(Protocol[State]):
    """What beam search needs of a model; encoder-decoder and decoder-only models both fit."""

    def start(self, input_ids: Tensor, attention_mask: Tensor) -> State:
        """Read the histories. Shapes: input_ids (B, S), attention_mask (B, S), 1 = a token."""

    def step(
        self, state: State, tokens: Tensor, parents: Tensor, first: int, count: int
    ) -> Step[State]:
        """Append one token to every beam and score the next one.

        The first step has one beam with the padding token, which stands for the start. The answer
        holds the log-probabilities, over all token ids, of the ids first … first + count - 1.

        Shapes: tokens (B, W), int64; parents (B, W), int64, the beam of the step before that each
            beam continues.
        """


class Hits(NamedTuple):
    """The best items of each user, best first; items of equal score in the order of their codes."""

    items: Tensor  # (B, k), int64, -1 where there are fewer than k
    scores: Tensor  # (B, k), float32, log-probabilities, -inf where there are fewer than k


class BeamSearch(Generic[State]):
    """Finds items with one model in one catalogue."""

    def __init__(
        self,
        model: BeamModel[State],
        vocabulary: Vocabulary,
        trie: CodeTrie,
        *,
        chunk: int = 32,
    ) -> None:
        """`chunk` users are decoded together: 32 suits the caches of a CPU, a GPU likes more.

        Raises:
            InputError: the trie's codes do not fit the vocabulary, or `chunk` is not positive.
        """
        largest = tuple(int(level.codes.max()) for level in trie.levels)
        sizes = vocabulary.code_sizes
        if len(largest) != len(sizes) or any(map(int.__ge__, largest, sizes)):
            raise InputError(
                f"the catalogue's codes go up to {largest}, the recommender's codebooks have "
                f"{sizes} entries; assign codes with the tokenizer this recommender was trained on"
            )
        _require_positive("chunk", chunk)
        self._model = model
        self._vocabulary = vocabulary
        self._trie = trie
        self._chunk = chunk

    @torch.no_grad()
    def search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        k: int = 10,
        beam: int = 50,
        allowed: AllowedItems | Tensor | None = None,
        exclude: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> Hits:
        """The k best items of each user, among those allowed for all and not excluded for them.

        A user gets min(k, items left) hits, whatever the beam: a beam of at least k always finds
        them, a smaller one is doubled for the users who need it.

        Shapes: input_ids (B, S), attention_mask (B, S), 1 = a token, padding at either end;
            allowed (N,), bool; exclude (B, E), item indices padded with -1, or one sequence per
            user.

        Raises:
            InputError: an argument of the wrong shape or range, or a model that does not give
                finite log-probabilities.
        """
        _require_positive("k", k)
        _require_positive("beam", beam)
        users = len(input_ids)
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise InputError(
                f"input_ids {tuple(input_ids.shape)} and attention_mask "
                f"{tuple(attention_mask.shape)} must both be (users, tokens); pad the histories"
            )
        if isinstance(allowed, Tensor):
            allowed = AllowedItems(self._trie, allowed)
        available = torch.full(
            (users,), self._trie.item_count if allowed is None else allowed.total
        )
        available = available.to(self._trie.device)  # (B,)
        exclusions = None
        if exclude is not None and len(exclude) != users:
            raise InputError(f"exclude has {len(exclude)} rows for {users} users; give one each")
        if exclude is not None:
            exclusions = Exclusions.build(self._trie, exclude, allowed)
            available -= exclusions.counts

        hits = _no_hits(users, k, self._trie.device)
        # Users with histories of similar length share a chunk, so little padding is computed.
        by_length = attention_mask.sum(dim=1).argsort(stable=True)  # (B,)
        for begin in range(0, users, self._chunk):
            chunk = by_length[begin : begin + self._chunk]
            width = beam
            while len(chunk):
                ids, mask = _trim(input_ids[chunk], attention_mask[chunk])
                skip = None if exclusions is None else exclusions.select(chunk)
                found = self._search_chunk(ids, mask, k, width, allowed, skip)
                hits.items[chunk], hits.scores[chunk] = found
                missing = (found.items != NO_ITEM).sum(dim=1) < available[chunk].clamp(max=k)
                chunk = chunk[missing]
                if len(chunk) and width >= k:
                    raise InputError(
                        "the model's log-probabilities are not finite; its weights are damaged, or "
                        "training diverged: load an earlier checkpoint"
                    )
                width *= 2
        return hits

    @torch.inference_mode()
    def _search_chunk(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        k: int,
        width: int,
        allowed: AllowedItems | None,
        exclusions: Exclusions | None,
    ) -> Hits:
        """Search with a beam of fixed width for users whose histories are encoded together."""
        state = self._model.start(input_ids, attention_mask)
        root = torch.zeros((len(input_ids), 1), dtype=torch.int64, device=self._trie.device)
        beams = _Beams(nodes=root, parents=root, scores=root.float())
        tokens = torch.full_like(root, PAD)
        sizes = self._vocabulary.code_sizes
        for depth, (level, size) in enumerate(zip(self._trie.levels, sizes, strict=True)):
            offset = self._vocabulary.code_offsets[depth]
            log_probs, state = self._model.step(state, tokens, beams.parents, offset, size)
            below = level.children(beams.nodes)  # (B, W)
            widest = int(below.length.max())
            slot = torch.arange(widest, device=root.device)  # (C,)
            missing = slot >= below.length[:, :, None]  # (B, W, C)
            child = (below.first[:, :, None] + slot).masked_fill_(missing, 0)  # (B, W, C)
            scores = log_probs.gather(2, level.codes[child].long())  # (B, W, C)
            scores += beams.scores[:, :, None]
            scores.masked_fill_(missing, -torch.inf)
            if allowed is not None:
                scores.masked_fill_(allowed.counts[depth][child] == 0, -torch.inf)
            if exclusions is not None:
                exclusions.block(scores, depth, beams.nodes, below.first)
            if depth == len(sizes) - 1:
                return self._hits(child.flatten(1), scores.flatten(1), k)
            beams = _keep_best(child, scores, width, len(level.codes))
            tokens = level.codes[beams.nodes].long() + offset
        raise AssertionError("a trie has at least one level")

    def _hits(self, leaves: Tensor, scores: Tensor, k: int) -> Hits:
        """The k best leaves. Shapes: leaves (B, M), scores (B, M)."""
        hits = _no_hits(len(leaves), k, leaves.device)
        best, place = _best(scores, k)
        items = self._trie.order[leaves.gather(1, place)].long()
        found = best.isfinite()
        count = best.shape[1]  # less than k when there are fewer candidates
        hits.items[:, :count] = items.where(found, NO_ITEM)
        hits.scores[:, :count] = best.where(found, -torch.inf)
        return hits


class _Beams(NamedTuple):
    nodes: Tensor  # (B, W), int64, of one level, ascending, so that ties go to the lower codes
    parents: Tensor  # (B, W), int64, the beam that each one continues
    scores: Tensor  # (B, W), float32, -inf for a beam that leads nowhere


def _keep_best(child: Tensor, scores: Tensor, width: int, size: int) -> _Beams:
    """The best children, of a level with `size` nodes, become the beams.

    Shapes: child (B, W, C), scores (B, W, C).
    """
    best, place = _best(scores.flatten(1), width)  # (B, W')
    # Live beams first, in the order of their nodes; that is also the order of their places.
    order = place.masked_fill(best == -torch.inf, torch.iinfo(place.dtype).max).argsort(dim=1)
    live = max(int((best > -torch.inf).sum(dim=1).max()), 1)
    order = order[:, :live]
    place, kept = place.gather(1, order), best.gather(1, order)
    nodes = child.flatten(1).gather(1, place)
    return _Beams(
        nodes=nodes.masked_fill(kept == -torch.inf, size - 1),  # keeps the row ascending
        parents=place // child.shape[2],
        scores=kept,
    )


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores and their places; equal scores in the order of their places.

    `topk` alone leaves open which of several equal scores it takes. Here the bits of a score, in an
    order that integers share, and the place form one integer, so that no two are equal.

    Shapes: scores (B, M), float32, without NaN → two times (B, min(count, M)).
    """
    size = scores.shape[1]
    bits = (scores + 0.0).view(torch.int32)  # adding zero turns -0.0, which sorts apart, into 0.0
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats sort backwards as integers
    places = torch.arange(size - 1, -1, -1, device=scores.device)
    keys = (ascending.long() << 32) | places  # (B, M)
    best = keys.topk(min(count, size), dim=1).values
    place = size - 1 - (best & 0xFFFFFFFF)
    return scores.gather(1, place), place


def _trim(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the columns at either end that are padding for every user."""
    used = attention_mask.any(dim=0).nonzero()  # (columns, 1)
    if not len(used):
        return input_ids, attention_mask
    kept = slice(int(used[0]), int(used[-1]) + 1)
    return input_ids[:, kept], attention_mask[:, kept]


def parent_rows(parents: Tensor, beams: int) -> Tensor:
    """Where each beam's parent is among all beams of the step before, of `beams` per user.

    Shapes: parents (B, W) → (B × W,), int64.
    """
    users = torch.arange(len(parents), device=parents.device)
    return (parents + beams * users[:, None]).flatten()


def follow_rows(earlier: Tensor, rows: Tensor | None, users: int) -> Tensor:
    """What each beam's parent remembers. (B, W', …), (B × W,) → (B, W, …)"""
    if rows is None:
        return earlier
    return earlier.flatten(0, 1).index_select(0, rows).view(users, -1, *earlier.shape[2:])


def follow_parents(earlier: Tensor, parents: Tensor) -> Tensor:
    """What each beam's parent remembers. (B, W', X), (B, W) → (B, W or 1, X)"""
    users, beams, _ = earlier.shape
    if beams == 1:
        return earlier  # the start is the same for all beams
    return follow_rows(earlier, parent_rows(parents, beams), users)


def _no_hits(users: int, k: int, device: torch.device) -> Hits:
    return Hits(
        items=torch.full((users, k), NO_ITEM, device=device),
        scores=torch.full((users, k), -torch.inf, device=device),
    )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
