"""The ranker stage: what the validation items of a run's domains teach about whom to trust.

The recommender is done by then and stays as it is. A ranker is kept where it is no worse than the
mixture on users that it did not learn from. Test items have no part in it.

A shop in which nothing is trained gets rankers that a base learned in its own shops. These do not
hear the network: at home it knew the items, and how far to trust it elsewhere nobody can say. What
was counted and what texts say mean the same in any shop.

RUN/ranker/DOMAIN.safetensors        the ranker of a domain, if one is kept
RUN/ranker/lend/DOMAIN.safetensors   what it lends to others

Shapes: U users · C candidates · F signs · N items.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.split import split_domain
from utgrec.decoding import MixedSearch
from utgrec.decoding.filters import NO_ITEM
from utgrec.evaluation.generative import DecodingConfig, GenerativeSystem
from utgrec.evaluation.metrics import ndcg_at
from utgrec.evaluation.protocol import make_query, sample_users
from utgrec.progress import Progress, silent
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.ranker import Lessons, Ranker, RankerConfig, fit_ranker, lent_ranker
from utgrec.recommender.train import STAGE as RECOMMENDER
from utgrec.recommender.train import read_memory, read_recommender, read_vocabulary
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.codes import STAGE as CODES
from utgrec.tokenizer.codes import read_codes

STAGE = "ranker"
LEND = "lend"
# The mixture was chosen by these very users, and what they are judged by here is one network, not
# the mean of all; so a ranker that looks a little worse by them is better by others.
LENIENCE = 0.99
FEWEST = 50  # users whose validation item is a candidate; of fewer nothing is learned
# Which items are taken for new is drawn for so many parts of the users apart: one draw for all is
# noise, as it may hold a shop's best-selling item, or none like it.
_DRAWS = 4


def train_ranker(
    domains: Sequence[Domain],
    codes: Sequence[Path],
    recommender: Path,
    config: RankerConfig,
    out: Path,
    *,
    decoding: DecodingConfig,
    exclude_seen: bool,
    progress: Progress = silent,
) -> storage.Manifest:
    """Train a ranker for each domain of a finished recommender and write their folder.

    Raises:
        MissingStage: codes or recommender are not finished.
        SettingsMismatch: `out` was made with other settings.
    """
    inputs = {"recommender": storage.read_manifest(recommender, RECOMMENDER).fingerprint}
    for domain, folder in zip(domains, codes, strict=True):
        inputs[f"codes {domain.name}"] = storage.read_manifest(folder, CODES).fingerprint
        inputs[f"domain {domain.name}"] = domain.fingerprint
    settings = {
        **to_dict(config),
        "decoding": to_dict(decoding),
        "exclude_seen": exclude_seen,
    }

    def make(work: Workspace) -> StageResult:
        model, vocabulary, made_with = read_recommender(recommender)
        memory = read_memory(recommender)
        found: dict[str, Any] = {}
        for done, (domain, folder) in enumerate(zip(domains, codes, strict=True)):
            progress("Fitting the ranker", done, len(domains))
            coded = CodedDomain(domain.name, read_codes(folder).codes, split_domain(domain))
            system = GenerativeSystem(
                model,
                vocabulary,
                domain.name,
                coded.codes,
                max_items=made_with.max_items,
                decoding=decoding,
                memory=memory,
            )
            learned = learn_ranker(system, vocabulary, coded, config, exclude_seen)
            found[domain.name] = learned.facts
            if learned.ranker is not None:
                learned.ranker.save(work.folder / _file_of(domain.name))
            if learned.for_others is not None:
                (work.folder / LEND).mkdir(exist_ok=True)
                learned.for_others.save(work.folder / LEND / _file_of(domain.name))
        progress("Fitting the ranker", len(domains), len(domains))
        counts = {
            "users": sum(facts["users"] for facts in found.values()),
            "rankers_kept": sum(facts["kept"] for facts in found.values()),
        }
        return StageResult({**counts, "domains": found})

    return run_stage(out, stage=STAGE, config=settings, inputs=inputs, make=make)


def lend_ranker(
    start: Path, domain: Domain, codes: Path, recommender: Path, out: Path
) -> storage.Manifest:
    """A ranker stage for a domain out of a finished one, without any training.

    In a domain that `start` does not know, the rankers of all its domains rank together.

    Raises:
        MissingStage: one of the stages is not finished.
    """
    made_by = storage.read_manifest(start, STAGE)
    inputs = {
        "start": made_by.fingerprint,
        "recommender": storage.read_manifest(recommender, RECOMMENDER).fingerprint,
        f"codes {domain.name}": storage.read_manifest(codes, CODES).fingerprint,
        f"domain {domain.name}": domain.fingerprint,
    }

    def make(work: Workspace) -> StageResult:
        known = made_by.facts["domains"]
        names = [domain.name] if domain.name in known else list(known)
        found = {name: _read(start, f"{LEND}/{_file_of(name)}") for name in names}
        rankers = {name: ranker for name, ranker in found.items() if ranker is not None}
        if rankers:
            ranker = rankers.get(domain.name) or lent_ranker(list(rankers.values()))
            coded = CodedDomain(domain.name, read_codes(codes).codes, split_domain(domain))
            items = _known_items(coded, read_vocabulary(recommender))
            ranker.knowing(*items).save(work.folder / _file_of(domain.name))
        facts = {"users": 0, "kept": bool(rankers), "lent_by": list(rankers)}
        return StageResult(
            {"users": 0, "rankers_kept": int(bool(rankers)), "domains": {domain.name: facts}}
        )

    return run_stage(out, stage=STAGE, config={"lent": True}, inputs=inputs, make=make)


def is_lent(folder: Path) -> bool:
    """Whether the rankers of a folder were lent by a base."""
    manifest = storage.find_manifest(folder, STAGE)
    return manifest is not None and manifest.config.get("lent", False) is True


def read_ranker(folder: Path, domain: str) -> Ranker | None:
    """The ranker of a domain; None where the mixture decides, or where no stage was made.

    Raises:
        FormatVersionError, CorruptFile: the folder cannot be used.
    """
    return _read(folder, _file_of(domain))


def _read(folder: Path, file: str) -> Ranker | None:
    manifest = storage.find_manifest(folder, STAGE)
    if manifest is None or file not in manifest.files:
        return None
    return Ranker.load(storage.check_file(folder, manifest, file))


def _file_of(domain: str) -> str:
    return f"{domain}.safetensors"


def ranker_input(folder: Path) -> dict[str, str]:
    """What a stage that uses the rankers of a folder records as its input; nothing without any."""
    manifest = storage.find_manifest(folder, STAGE)
    return {} if manifest is None else {STAGE: manifest.fingerprint}


class Learned(NamedTuple):
    """What validation items taught."""

    ranker: Ranker | None  # if it is worth it
    facts: dict[str, Any]
    for_others: Ranker | None = None  # one that does not hear the network, if the other is kept


def learn_ranker(
    system: GenerativeSystem,
    vocabulary: Vocabulary,
    domain: CodedDomain,
    config: RankerConfig,
    exclude_seen: bool,
) -> Learned:
    """A ranker for a domain from its validation items."""
    unwanted = config.networks == 0 or system.decoding.mixing is not None
    nobody = len(domain.split.validated) == 0
    if unwanted or nobody or not isinstance(system.search, MixedSearch):
        return Learned(None, {"users": 0, "kept": False})
    rounds = make_rounds(system, domain, config, exclude_seen)
    lessons = rounds[0]
    asked = int((lessons.target & lessons.known).any(dim=1).sum())
    facts: dict[str, Any] = {"users": len(lessons.target), "among_candidates": asked}
    if asked < FEWEST:
        return Learned(None, {**facts, "kept": False})
    ranker, unseen = fit_rounds(rounds, vocabulary, domain, config)
    mixture = _ndcg(lessons.signs[..., 0], lessons)  # the first sign is the mixture's score
    ranked = _ndcg(unseen, lessons)
    kept = ranked > LENIENCE * mixture
    # Of candidates alone, so these are not the figures of a search, but near them.
    facts |= {"ndcg@10 mixture": round(mixture, 5), "ndcg@10 ranked": round(ranked, 5)}
    if not kept:
        return Learned(None, {**facts, "kept": False})
    for_others, _ = fit_rounds([one.deaf() for one in rounds], vocabulary, domain, config)
    return Learned(ranker, {**facts, "kept": True}, for_others)


def make_rounds(
    system: GenerativeSystem, domain: CodedDomain, config: RankerConfig, exclude_seen: bool
) -> list[Lessons]:
    """What validation items teach: as everything is, then as if some known items were new."""
    users = sample_users(domain.split, config.users, (config.seed, 5))
    nothing = np.zeros(len(domain.codes), dtype=np.bool_)
    rounds = [_make_lessons(system, domain, users, nothing, config, exclude_seen)]
    if config.newcomers:
        known = _taken(domain).numpy() > 0
        random = np.random.default_rng((config.seed, 6))
        parts = []
        for some in np.array_split(users, min(_DRAWS, len(users))):
            new = known & (random.random(len(known)) < config.newcomers)
            forgetful = system.taking_for_new(new)
            parts.append(_make_lessons(forgetful, domain, some, new, config, exclude_seen))
        rounds.append(Lessons(*(torch.cat(column) for column in zip(*parts, strict=True))))
    return rounds


def _make_lessons(
    system: GenerativeSystem,
    domain: CodedDomain,
    users: npt.NDArray[np.int64],
    new: npt.NDArray[np.bool_],
    config: RankerConfig,
    exclude_seen: bool,
) -> Lessons:
    """The candidates of some users, and what they took; `new` (N,) are taken for new items."""
    count, search = config.candidates, system.search
    assert isinstance(search, MixedSearch)
    known = _taken(domain)
    taken = known.masked_fill(torch.from_numpy(new), 0)
    query = make_query(domain.split, users, "valid")
    targets = torch.from_numpy(domain.split.valid[users].astype(np.int64))
    tokens, mask = system.encoder.encode(query.histories)
    parts = []
    for ranked in search.candidates(
        tokens,
        mask,
        count,
        beam=system.decoding.beam,
        exclude=[history.tolist() for history in query.histories] if exclude_seen else None,
    ):
        items = ranked.items  # (b, at most C)
        found = items != NO_ITEM
        signs = ranked.signs._replace(taken=taken[items.clamp(min=0)])
        lessons = Lessons(
            signs.stacked(),
            found,
            items == targets[ranked.users, None],
            (known[items.clamp(min=0)] > 0) & found,
        )
        parts.append([_filled(part, count) for part in lessons])
    return Lessons(*(torch.cat(column) for column in zip(*parts, strict=True)))


def fit_rounds(
    rounds: Sequence[Lessons], vocabulary: Vocabulary, domain: CodedDomain, config: RankerConfig
) -> tuple[Ranker, Tensor]:
    """`fit_ranker`, told how often the items of a domain were taken."""
    return fit_ranker(rounds, *_known_items(domain, vocabulary), config)


def _known_items(domain: CodedDomain, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Keys of the items that were taken in training, and how often each was: (n,) twice."""
    taken = _taken(domain)
    known = taken.nonzero()[:, 0]
    return catalog_keys(vocabulary, domain.name, domain.codes[known.numpy()]), taken[known]


def _taken(domain: CodedDomain) -> Tensor:
    """How often each item was taken in training: (N,)."""
    train = torch.from_numpy(domain.split.train.astype(np.int64))
    return torch.bincount(train, minlength=len(domain.codes))


def _filled(values: Tensor, count: int) -> Tensor:
    """As many candidates for all: zeros, or nothing, in (b, C, …) after those there are."""
    out = values.new_zeros(len(values), count, *values.shape[2:])
    out[:, : values.shape[1]] = values
    return out


def _ndcg(scores: Tensor, lessons: Lessons) -> float:
    """Mean NDCG@10 of candidates put in order by scores (U, C); others count as not found."""
    scores = scores.masked_fill(~lessons.found, -torch.inf)
    place = lessons.target.int().argmax(dim=1, keepdim=True)  # (U, 1)
    ahead = (scores > scores.gather(1, place)).sum(dim=1)
    ahead = torch.where(lessons.target.any(dim=1), ahead, scores.shape[1] + 10)
    return float(ndcg_at(ahead.numpy(), 10).mean())
