"""Beam search over a catalogue's trie: the k items that a model gives the highest probability.

The score of an item is the sum of the log-probabilities of its codes, each over the whole
vocabulary. Only nodes with an allowed item below them are entered, so every beam ends in an item.
In the last step, beams that can no longer reach the k best are left out; that changes no result.

Shapes: B users · S history tokens · W beams · C children of a node (padded) · N items · L codes.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from utgrec.decoding.choose import (
    Beams,
    Leaves,
    above,
    best_leaves,
    count_of_first,
    keep_best,
    merge_leaves,
    part,
)
from utgrec.decoding.filters import NO_ITEM, AllowedItems, Exclusions
from utgrec.decoding.parallel import in_threads
from utgrec.decoding.trie import CodeTrie, look_up
from utgrec.errors import InputError
from utgrec.recommender.vocabulary import PAD, Vocabulary

State = TypeVar("State")
_FEWEST = 2  # users that a thread takes on at once; fewer are better off sharing operations


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


@runtime_checkable
class SelectiveModel(BeamModel[State], Protocol[State]):
    """A model whose state can be cut to some users, so that only these go on."""

    def select(self, state: State, users: Tensor) -> State:
        """The state of some users. Shapes: users (b,), int64."""


class _Given(NamedTuple):
    """What a chunk of users may get."""

    k: int
    width: int
    allowed: AllowedItems | None
    exclusions: Exclusions | None


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
        chunk: int | None = None,
    ) -> None:
        """`chunk` users are decoded together: on a CPU 32, which its caches hold, on a GPU 1024.

        On a CPU with several threads (`torch.get_num_threads`), each takes chunks of its own.

        Raises:
            InputError: the trie's codes do not fit the vocabulary, or `chunk` is not positive.
        """
        chunk = (32 if trie.device.type == "cpu" else 1024) if chunk is None else chunk
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
        heard: Callable[[Tensor, State], None] | None = None,
    ) -> Hits:
        """The k best items of each user, among those allowed for all and not excluded for them.

        A user gets min(k, items left) hits, whatever the beam: a beam of at least k always finds
        them, a smaller one is doubled for the users who need it.

        Shapes: input_ids (B, S), attention_mask (B, S), 1 = a token, padding at either end;
            allowed (N,), bool; exclude (B, E), item indices padded with -1, or one sequence per
            user. `heard` is told what the model made of some users' histories, (b,) and a state,
            so that nobody needs to read them again; threads may call it at the same time.

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

        @torch.no_grad()
        def fill(chunk: Tensor) -> None:
            width = beam
            while len(chunk):
                ids, mask = _trim(input_ids[chunk], attention_mask[chunk])
                skip = None if exclusions is None else exclusions.select(chunk)
                state = self._model.start(ids, mask)
                if heard is not None:
                    heard(chunk, state)
                found = self._search_chunk(state, len(ids), _Given(k, width, allowed, skip))
                hits.items[chunk], hits.scores[chunk] = found
                missing = (found.items != NO_ITEM).sum(dim=1) < available[chunk].clamp(max=k)
                chunk = chunk[missing]
                if len(chunk) and width >= k:
                    raise InputError(
                        "the model's log-probabilities are not finite; its weights are damaged, or "
                        "training diverged: load an earlier checkpoint"
                    )
                width *= 2

        # Users with histories of similar length share a chunk, so little padding is computed.
        by_length = attention_mask.sum(dim=1).argsort(stable=True, descending=True)  # (B,)
        threads = torch.get_num_threads() if by_length.device.type == "cpu" else 1
        even = max(-(-users // threads), _FEWEST)  # a chunk for every thread, if there are enough
        in_threads(fill, torch.split(by_length, min(self._chunk, even)), threads)
        return hits

    @torch.inference_mode()
    def _search_chunk(self, state: State, users: int, given: _Given) -> Hits:
        """Search with a beam of fixed width for users whose histories were read together."""
        root = torch.zeros((users, 1), dtype=torch.int64, device=self._trie.device)
        beams = before = Beams(nodes=root, parents=root, scores=root.float())
        for depth, level in enumerate(self._trie.levels[:-1]):
            child, scores, state = self._expand(state, beams, depth, given)
            before = beams
            beams = keep_best(child, scores, given.width, len(level.codes))
        leaves = self._finish(state, beams, before, given)
        items = self._trie.order[leaves.nodes].long()
        found = leaves.scores.isfinite()
        return Hits(
            items.masked_fill(~found, NO_ITEM), leaves.scores.masked_fill(~found, -torch.inf)
        )

    def _finish(self, state: State, beams: Beams, before: Beams, given: _Given) -> Leaves:
        """The last step: the k best leaves below the beams, (B, k).

        The best beams go first. Of the others, those below a user's k-th leaf cannot reach it.
        """
        model, depth = self._model, len(self._trie.levels) - 1
        width = beams.nodes.shape[1]
        first = count_of_first(beams, before, given.k) if depth else width
        if first == width or not isinstance(model, SelectiveModel):
            child, scores, _ = self._expand(state, beams, depth, given)
            return best_leaves(child.flatten(1), scores.flatten(1), given.k)
        size = len(self._trie.levels[depth - 1].codes)
        lead, rest = part(beams, first, size)
        child, scores, _ = self._expand(state, lead, depth, given)
        leaves = best_leaves(child.flatten(1), scores.flatten(1), given.k)
        bar = leaves.scores[:, -1:]
        promising = (rest.scores >= bar) & (rest.scores > -torch.inf)
        users = promising.any(dim=1).nonzero().squeeze(1)  # (b,)
        if not len(users):
            return leaves
        exclusions = given.exclusions
        fewer = given._replace(exclusions=None if exclusions is None else exclusions.select(users))
        rest = above(rest, bar, users, size)
        child, scores, _ = self._expand(model.select(state, users), rest, depth, fewer)
        more = best_leaves(child.flatten(1), scores.flatten(1), given.k)
        return merge_leaves(leaves, more, users)

    def _expand(
        self, state: State, beams: Beams, depth: int, given: _Given
    ) -> tuple[Tensor, Tensor, State]:
        """The children of all beams, their scores, and the state: (B, W, C) twice."""
        level, size = self._trie.levels[depth], self._vocabulary.code_sizes[depth]
        if depth == 0:
            tokens = torch.full_like(beams.nodes, PAD)
        else:
            codes = self._trie.levels[depth - 1].codes[beams.nodes]
            tokens = codes.long() + self._vocabulary.code_offsets[depth - 1]
        offset = self._vocabulary.code_offsets[depth]
        log_probs, state = self._model.step(state, tokens, beams.parents, offset, size)
        below = level.children(beams.nodes)  # (B, W)
        widest = int(below.length.max())
        slot = torch.arange(widest, device=beams.nodes.device)  # (C,)
        missing = slot >= below.length[:, :, None]  # (B, W, C)
        child = (below.first[:, :, None] + slot).masked_fill_(missing, 0)  # (B, W, C)
        scores = log_probs.gather(2, look_up(level.codes, child).long())  # (B, W, C)
        scores += beams.scores[:, :, None]
        if given.allowed is not None:
            missing |= given.allowed.none_below(depth, child)
        scores.masked_fill_(missing, -torch.inf)
        if given.exclusions is not None:
            given.exclusions.block(scores, depth, beams.nodes, below.first)
        return child, scores, state


def _trim(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the columns at either end that are padding for every user."""
    used = attention_mask.any(dim=0).nonzero()  # (columns, 1)
    if not len(used):
        return input_ids, attention_mask
    kept = slice(int(used[0]), int(used[-1]) + 1)
    return input_ids[:, kept], attention_mask[:, kept]


def _no_hits(users: int, k: int, device: torch.device) -> Hits:
    return Hits(
        items=torch.full((users, k), NO_ITEM, device=device),
        scores=torch.full((users, k), -torch.inf, device=device),
    )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
