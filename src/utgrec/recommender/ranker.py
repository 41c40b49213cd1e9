"""A ranker: the best items of a mixture, put in order by all that is known of each.

A mixture weighs its voices alike for every user and item. Who is right hangs on more: on how much a
history says, on whether both memories name an item, on what went with the newest item alone. So the
best items of a mixture are candidates, and a few small networks, of which each saw other users,
score them by some twenty signs. Each guesses the item that was taken next among the candidates; the
mean of their scores decides. Candidates share the probability that the mixture gave them together,
so scores stay log-probabilities.

What a ranker learns is how far to trust whom; of an item it knows how often it was taken. How items
that nobody has taken yet will fare is not in a shop's past. So known ones are taken for new in a
second round of lessons, and a ranker learns to expect of a new item what it would of any other of
which no more is known. What the network says of it is not heard: it learned from those known ones,
so it says better things of them than it will of new items.

Shapes: B users · C candidates · F signs · E networks · H hidden units · n known items.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from utgrec.config import require
from utgrec.errors import FormatVersionError

_MOST = 5.0  # deviations from the mean
_LEAST = -20.0  # logarithms of shares below this are all the same
MEMORIES = 4  # companions and contents, each of the whole history and of its newest item alone
SIGNS = 7 + 3 * MEMORIES
OF_NETWORK, NEW = slice(1, 4), 5  # what a network says, and whether nobody took the item


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankerConfig:
    """How the best items of a mixture are put in order."""

    networks: int = 4
    """Small networks whose mean decides, each trained on other users; 0 ranks by the mixture."""
    candidates: int = 100
    """Items of the mixture that are put in order."""
    users: int = 10_000
    """Validation users to learn from, at most; drawn where there are more."""
    newcomers: float = 0.1
    """Share of the known items that a second round of lessons takes for new ones; 0: no such round,
    and new items count as taken once."""
    width: int = 32
    """Hidden units of a network."""
    epochs: int = 30
    """Times that every user is learned from."""
    batch_size: int = 128
    """Users of a step."""
    learning_rate: float = 3e-3
    """Peak learning rate; it falls to 0 along a cosine."""
    weight_decay: float = 1.0
    """AdamW's."""
    seed: int = 0
    """Seeds the first weights, the order of users, and who is left out of which network."""

    def __post_init__(self) -> None:
        require(
            self.networks == 0 or self.networks >= 2,
            f"networks must be 0, or at least 2 so that each can be tried on users it did not see, "
            f"got {self.networks}",
        )
        for name in ("candidates", "users", "width", "epochs", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        require(0 <= self.newcomers < 1, f"newcomers must be in [0, 1), got {self.newcomers}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")


class Signs(NamedTuple):
    """What is known of candidates before they are put in order."""

    scores: Tensor  # (B, C), log-probabilities by the mixture, -inf for no candidate
    network: Tensor  # (B, C), log-shares by what was trained
    written: Tensor  # (B, C), log-probability of the codes beside that of the least likely hit
    sums: Sequence[Tensor]  # MEMORIES × (B, C), similarities to items of the history
    totals: Sequence[Tensor]  # MEMORIES × (B,), the same of all usable items together
    taken: Tensor  # (B, C), how often in training, 0 for new items
    lengths: Tensor  # (B,), items of the history that were read

    def stacked(self) -> Tensor:
        """All signs as numbers of a like size: (B, C, F)."""
        shape = self.scores.shape
        out = [
            self.scores.clamp(min=_LEAST),
            self.network.clamp(min=_LEAST),
            self.written.clamp(min=0.0),
            _places(self.network),
            self.taken.clamp(min=1).float().log(),
            (self.taken == 0).float(),
            self.lengths.float().log1p()[:, None].expand(shape),
        ]
        for sums, total in zip(self.sums, self.totals, strict=True):
            out += [(sums + 0.01).log(), _places(sums), (total + 0.1).log()[:, None].expand(shape)]
        return torch.stack(out, dim=-1)


class Ranker(NamedTuple):
    """Small networks with one hidden layer over signs, each with its own measure of them."""

    mean: Tensor  # (E, 1, F)
    deviation: Tensor  # (E, 1, F)
    inner: Tensor  # (E, F, H)
    inner_bias: Tensor  # (E, 1, H)
    outer: Tensor  # (E, H, 1)
    keys: Tensor  # (n,), int64, ascending: domain and codes of each known item (`item_vectors.py`)
    taken: Tensor  # (n,), int64, how often in training
    candidates: int
    lent: bool = False  # by other shops: no validation item of this one has a part in it

    def taken_of(self, keys: Tensor) -> Tensor:
        """How often items were taken, 0 if they are not known. Any shape → the same."""
        if not len(self.keys):
            return torch.zeros_like(keys)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.taken[place], 0)

    def shares(self, signs: Signs) -> Tensor:
        """Log-shares of the candidates, -inf where there is none: (B, C)."""
        found = signs.scores > -torch.inf
        logits = self.logits(signs.stacked()).mean(dim=0)
        shares = logits.masked_fill(~found, -torch.inf).log_softmax(dim=1)
        return shares.masked_fill(~found, -torch.inf)  # of nothing it would be NaN

    def logits(self, stacked: Tensor) -> Tensor:
        """What each network thinks. Shapes: (B, C, F) → (E, B, C)."""
        # (E, B × C, F)
        rows = _standardised(stacked.flatten(0, 1), self.mean, self.deviation)
        hidden = functional.gelu(rows @ self.inner + self.inner_bias)  # (E, B × C, H)
        logits: Tensor = (hidden @ self.outer).view(-1, *stacked.shape[:2])
        return logits

    def knowing(self, keys: Tensor, taken: Tensor) -> "Ranker":
        """The same networks where other items are known: (n,) keys in any order, (n,) counts."""
        ascending = keys.sort()
        return self._replace(keys=ascending.values, taken=taken[ascending.indices])

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        numbers = {name: torch.tensor(getattr(self, name)) for name in ("candidates", "lent")}
        tensors = {**self._asdict(), **numbers}
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Ranker":
        """Open what `save` wrote.

        Raises:
            FormatVersionError: it was written when other signs were read.
        """
        tensors = load_file(path)
        if (signs := tensors["inner"].shape[1]) != SIGNS:
            raise FormatVersionError(
                f"{path} reads {signs} signs of an item, and this version has {SIGNS}; remove the "
                "folder that it is in, and make it anew with `utgrec recommender rank RUN`"
            )
        candidates, lent = int(tensors.pop("candidates")), bool(tensors.pop("lent"))
        return cls(**tensors, candidates=candidates, lent=lent)


def lent_ranker(rankers: Sequence[Ranker]) -> Ranker:
    """The networks of some shops' rankers, of which each has its say, for a shop that has none.

    They should be `deaf` to the recommender's network, which knows those shops better than others.
    """
    mean, deviation, inner, bias, outer = (
        torch.cat([getattr(one, name) for one in rankers]) for name in Ranker._fields[:5]
    )
    nothing = torch.zeros(0, dtype=torch.int64)
    candidates = max(one.candidates for one in rankers)
    return Ranker(mean, deviation, inner, bias, outer, nothing, nothing, candidates, lent=True)


class Lessons(NamedTuple):
    """What was asked for, among candidates."""

    signs: Tensor  # (B, C, F), as `Signs.stacked` has them
    found: Tensor  # (B, C), bool, where there is a candidate
    target: Tensor  # (B, C), bool, the item that was taken; nowhere if it is no candidate
    known: Tensor  # (B, C), bool, candidates that were taken in training; others teach nothing

    def deaf(self) -> "Lessons":
        """The same without what the network says: it is the same for all, so it is never heard."""
        signs = self.signs.clone()
        signs[..., OF_NETWORK] = 0.0
        return self._replace(signs=signs)


def fit_ranker(
    rounds: Sequence[Lessons], keys: Tensor, taken: Tensor, config: RankerConfig
) -> tuple[Ranker, Tensor]:
    """Train the networks, each without an equal part of the users.

    Args:
        rounds: lessons of the same users, in the same order; all teach alike.
        keys: domain and codes of each known item, (n,), in any order.
        taken: how often each was taken in training, (n,).

    Returns:
        The ranker, and the logits of each user's candidates of the first round by the one network
        that did not learn from that user, (B, C): by these it can be told what the ranker is worth.
    """
    first, users = rounds[0], len(rounds[0].signs)
    random = torch.Generator().manual_seed(config.seed)
    left_out = torch.randperm(users, generator=random) % config.networks  # (B,)
    heard = torch.cat([one.signs[one.known] for one in rounds])  # (candidates of all users, F)
    mean, deviation = heard.mean(dim=0), heard.std(dim=0)
    del heard
    # A sign that is the same for all teaches nothing, and must say nothing where it differs later.
    deviation = torch.where(deviation > 1e-4, deviation, torch.inf)
    asked = [(one.target & one.known).any(dim=1) for one in rounds]  # (B,) each
    signs, target, known, whose = (
        torch.cat(parts)
        for parts in zip(
            *(
                (
                    _standardised(one.signs[some], mean, deviation),
                    one.target[some].int().argmax(dim=1),
                    one.known[some],
                    left_out[some],
                )
                for one, some in zip(rounds, asked, strict=True)
            ),
            strict=True,
        )
    )
    nets = [
        _train(signs[part := whose != one], target[part], known[part], config, random)
        for one in range(config.networks)
    ]
    inner, bias, outer = (torch.stack(parts) for parts in zip(*nets, strict=True))
    mean, deviation = (one.repeat(config.networks, 1, 1) for one in (mean, deviation))
    unknown = Ranker(mean, deviation, inner, bias, outer, keys[:0], taken[:0], config.candidates)
    ranker = unknown.knowing(keys, taken)
    with torch.no_grad():
        logits = torch.cat([ranker.logits(part) for part in torch.split(first.signs, 512)], dim=1)
    return ranker, logits.gather(0, left_out[None, :, None].expand(1, *logits.shape[1:]))[0]


def _train(
    signs: Tensor, target: Tensor, known: Tensor, config: RankerConfig, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One network: inner weights (F, H), their bias (1, H), outer weights (H, 1).

    Shapes: signs (b, C, F), target (b,), known (b, C).
    """
    count, width = signs.shape[-1], config.width

    def start(size: tuple[int, ...], fan_in: int) -> Tensor:
        draw: Tensor = (torch.rand(size, generator=random) * 2 - 1) / fan_in**0.5
        return draw.requires_grad_()

    inner = start((count, width), count)
    bias, outer = start((1, width), count), start((width, 1), width)
    optimizer = torch.optim.AdamW(
        [inner, bias, outer], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    for _ in range(config.epochs):
        order = torch.randperm(len(signs), generator=random)
        for rows in torch.split(order, config.batch_size):
            hidden = functional.gelu(signs[rows] @ inner + bias)
            logits = (hidden @ outer)[..., 0]
            logits = logits.masked_fill(~known[rows], -torch.inf)
            loss = functional.cross_entropy(logits, target[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return inner.detach(), bias.detach(), outer.detach()


def _standardised(signs: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Signs as so many deviations from their mean, within what can be learned from few users."""
    out = ((signs - mean) / deviation).clamp(-_MOST, _MOST)
    out[..., OF_NETWORK] *= signs[..., NEW, None] == 0
    return out


def _places(values: Tensor) -> Tensor:
    """Minus the logarithm of each candidate's place by a sign, the first 0: (B, C) → (B, C)."""
    order = values.argsort(dim=1, descending=True, stable=True)
    return -order.argsort(dim=1).float().log1p()
