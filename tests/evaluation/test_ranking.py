"""The ranker stage: learned from validation items, kept where it is worth it, used everywhere."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mini_run import mini_domains, mini_recipe
from utgrec import load, storage
from utgrec.adaptation import adapt_run
from utgrec.catalog import Domain
from utgrec.cli import app
from utgrec.comparison.trained import fingerprints, open_system
from utgrec.data.split import Split, split_domain
from utgrec.decoding import MixedSearch
from utgrec.errors import CorruptFile, InputError, SettingsMismatch
from utgrec.evaluation import ranking
from utgrec.evaluation.generative import DecodingConfig, GenerativeSystem
from utgrec.evaluation.metrics import ndcg_at
from utgrec.evaluation.protocol import evaluate, sample_users
from utgrec.evaluation.ranking import (
    learn_ranker,
    lend_ranker,
    make_rounds,
    read_ranker,
    train_ranker,
)
from utgrec.recipes import Recipe
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.companions import CompanionsConfig, count_companions
from utgrec.recommender.contents import Contents, ContentsConfig, compare_contents
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.mixing import CODES_ALONE, Mixing
from utgrec.recommender.ranker import NEW, OF_NETWORK, Ranker, RankerConfig
from utgrec.recommender.train import Memory
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.report.making import making
from utgrec.report.source import open_run
from utgrec.runs import RunFolder, evaluate_run, run_recipe

ITEMS, USERS = 60, 500
TAKEN, COUNTED = 4, 7  # signs: how often, similarity by the first memory
VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))
CONFIG = RankerConfig(candidates=30, epochs=20, batch_size=32, networks=3)
# Every item of a history counts alike here, although only the newest says what comes next.
MIXING = Mixing(vectors=0.0, companions=0.8, contents=0.0, decay=1.0)


def walks(seed: int = 0) -> np.ndarray:
    """Six trained items of each user, then one to validate and one to test: mostly the next of a
    ring of items, else any: (U, 8)."""
    rng = np.random.default_rng(seed)
    items = [rng.integers(0, ITEMS, USERS)]
    for _ in range(7):
        jump = rng.random(USERS) < 0.4
        items.append(np.where(jump, rng.integers(0, ITEMS, USERS), (items[-1] + 1) % ITEMS))
    return np.stack(items, axis=1).astype(np.int32)


def make_shop(taken: np.ndarray, users: int = USERS) -> CodedDomain:
    rng = np.random.default_rng(0)
    places = rng.permutation(8 * 16 * 16)[:ITEMS]
    codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
    valid, test = taken[:, 6].copy(), taken[:, 7].copy()
    valid[users:] = test[users:] = -1
    offsets = np.arange(0, 6 * USERS + 1, 6)
    return CodedDomain("shop", codes, Split(offsets, taken[:, :6].ravel(), valid, test))


def make_system(
    shop: CodedDomain,
    ranker: Ranker | None = None,
    mixing: Mixing = MIXING,
    contents: Contents | None = None,
) -> GenerativeSystem:
    torch.manual_seed(0)
    sizes = CausalSizes(width=16, feed_forward=16, heads=2, item_vectors=False)
    companions = count_companions([shop], VOCABULARY, CompanionsConfig())
    return GenerativeSystem(
        CausalRecommender(sizes, VOCABULARY).eval(),
        VOCABULARY,
        "shop",
        shop.codes,
        max_items=20,
        decoding=DecodingConfig(beam=10, precision="fp32"),
        memory=Memory(companions, contents or Contents.nothing(), {"shop": mixing}),
        ranker=ranker,
    )


def learn(shop: CodedDomain, config: RankerConfig = CONFIG, mixing: Mixing = MIXING):
    return learn_ranker(make_system(shop, mixing=mixing), VOCABULARY, shop, config, False)[:2]


def ndcg(system: GenerativeSystem, shop: CodedDomain) -> float:
    found = evaluate(system, shop.split, part="test", item_count=ITEMS, exclude_seen=False)
    return found.mean("ndcg@10")


def same(one: Ranker, two: Ranker) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:7], two[:7], strict=True))


@pytest.fixture(scope="module")
def shop() -> CodedDomain:
    return make_shop(walks())


@pytest.fixture(scope="module")
def learned(shop: CodedDomain) -> tuple[Ranker, dict]:
    ranker, facts = learn(shop)
    assert ranker is not None
    return ranker, facts


def test_the_newest_item_is_trusted_where_it_alone_tells(shop, learned) -> None:
    ranker, facts = learned
    before, after = (ndcg(make_system(shop, one), shop) for one in (None, ranker))
    assert after > 1.2 * before
    assert facts["kept"] is True and facts["users"] == USERS
    # What users said whom a network did not see is what users of the test part say.
    assert facts["ndcg@10 mixture"] == pytest.approx(before, abs=0.06)
    assert facts["ndcg@10 ranked"] == pytest.approx(after, abs=0.06)
    assert facts["ndcg@10 ranked"] > 1.2 * facts["ndcg@10 mixture"]


def test_test_items_have_no_part_in_it(shop, learned) -> None:
    moved = np.roll(shop.split.test, 1)
    other, facts = learn(shop._replace(split=shop.split._replace(test=moved)))
    assert other is not None and same(other, learned[0]) and facts == learned[1]


def test_validation_items_have(shop, learned) -> None:
    moved = np.roll(shop.split.valid, 1)
    other, facts = learn(shop._replace(split=shop.split._replace(valid=moved)))
    assert facts != learned[1] and (other is None or not same(other, learned[0]))


def test_what_teaches_nothing_is_not_kept(shop) -> None:
    """Nobody takes what any sign points at, so nothing is better than the mixture's own order."""
    rng = np.random.default_rng(5)
    anything = rng.integers(0, ITEMS, USERS).astype(np.int32)
    ranker, facts = learn(shop._replace(split=shop.split._replace(valid=anything)))
    assert facts["kept"] == (facts["ndcg@10 ranked"] > 0.99 * facts["ndcg@10 mixture"])
    assert (ranker is not None) == facts["kept"]
    assert facts["ndcg@10 ranked"] < 0.15


def test_what_is_lent_to_others_does_not_hear_the_network(shop) -> None:
    learned = learn_ranker(make_system(shop), VOCABULARY, shop, CONFIG, False)
    assert learned.ranker is not None and learned.for_others is not None
    rounds = make_rounds(make_system(shop), shop, CONFIG, False)
    loud = rounds[0].signs.clone()
    loud[..., OF_NETWORK] += 7.0
    own, others = learned.ranker.logits, learned.for_others.logits
    assert torch.equal(others(loud), others(rounds[0].signs))
    assert not torch.allclose(own(loud), own(rounds[0].signs))
    assert ndcg(make_system(shop, learned.for_others), shop) > 1.2 * ndcg(make_system(shop), shop)
    silent = rounds[0].deaf()
    assert not silent.signs[..., OF_NETWORK].any() and rounds[0].signs[..., OF_NETWORK].any()
    assert torch.equal(others(silent.signs), others(rounds[0].signs))


@pytest.mark.parametrize(("share", "kept"), [(0.985, False), (0.995, True), (1.01, True)])
def test_a_little_worse_is_kept(shop, monkeypatch, share, kept) -> None:
    figures = iter([0.2, 0.2 * share])  # of the mixture, of the ranker
    monkeypatch.setattr(ranking, "_ndcg", lambda *_: next(figures))
    ranker, facts = learn(shop, dataclasses.replace(CONFIG, epochs=1))
    assert facts["kept"] is kept and (ranker is not None) is kept


def test_of_few_users_nothing_is_learned() -> None:
    ranker, facts = learn(make_shop(walks(), users=40))
    assert ranker is None and facts["kept"] is False and facts["users"] == 40
    ranker, facts = learn(make_shop(walks(), users=0))
    assert ranker is None and facts == {"users": 0, "kept": False}


def test_codes_alone_have_nothing_to_put_in_order(shop) -> None:
    assert learn(shop, mixing=CODES_ALONE) == (None, {"users": 0, "kept": False})
    off = dataclasses.replace(CONFIG, networks=0)
    assert learn(shop, off) == (None, {"users": 0, "kept": False})
    system = make_system(shop)
    system.decoding = dataclasses.replace(system.decoding, mixing=MIXING)  # one's own
    nothing = (None, {"users": 0, "kept": False})
    assert learn_ranker(system, VOCABULARY, shop, CONFIG, False) == (*nothing, None)


def test_what_nobody_took_is_told_from_the_rest(shop) -> None:
    train = np.where(shop.split.train % 3 == 0, 1, shop.split.train).astype(np.int32)
    other = shop._replace(split=shop.split._replace(train=train))
    asked = RankerConfig(candidates=ITEMS, users=20, newcomers=0.0)
    (lessons,) = make_rounds(make_system(shop), other, asked, False)
    assert lessons.found.all() and lessons.target.sum() == 20
    assert lessons.known.sum(dim=1).tolist() == [ITEMS - ITEMS // 3] * 20
    assert torch.equal(lessons.signs[..., NEW] == 0, lessons.known)
    users = sample_users(other.split, 20, (asked.seed, 5))
    of_target = torch.from_numpy(other.split.valid[users].astype(np.int64) % 3 != 0)
    assert ((lessons.known & lessons.target).any(dim=1) == of_target).all()
    assert 0 < of_target.sum() < 20


def test_a_second_round_takes_known_items_for_new(shop) -> None:
    """Each part of the users meets other ones; they teach, and no memory names them."""
    asked = RankerConfig(candidates=ITEMS, users=41, newcomers=0.2)
    plain, told = make_rounds(make_system(shop), shop, asked, False)
    (alone,) = make_rounds(
        make_system(shop), shop, dataclasses.replace(asked, newcomers=0.0), False
    )
    for one, other in zip(plain, alone, strict=True):
        assert torch.equal(one, other)
    assert told.found.all() and told.known.all() and told.target.sum() == 41
    new = told.signs[..., NEW] == 1
    assert not plain.signs[..., NEW].any()
    assert 0.1 < new.float().mean() < 0.3
    assert (told.signs[..., COUNTED][new] == np.log(np.float32(0.01))).all()
    assert (told.signs[..., TAKEN][new] == 0).all()
    assert (told.target & new).any() and (told.target & ~new).any()
    counts = new.sum(dim=1)  # users of a part have the same new items
    assert len(counts.unique()) > 1 and counts[0] == counts[10] and counts[-1] == counts[-10]


def test_a_system_that_takes_items_for_new_knows_nothing_of_them_alone(shop, learned) -> None:
    sizes = CausalSizes(width=16, feed_forward=16, heads=2)
    torch.manual_seed(0)
    keys = catalog_keys(VOCABULARY, "shop", shop.codes)
    model = CausalRecommender(sizes, VOCABULARY, known=keys).eval()
    assert model.items is not None
    torch.nn.init.normal_(model.items.own.weight)
    companions = count_companions([shop], VOCABULARY, CompanionsConfig())
    system = GenerativeSystem(
        model,
        VOCABULARY,
        "shop",
        shop.codes,
        max_items=20,
        decoding=DecodingConfig(beam=10, precision="fp32"),
        memory=Memory(
            companions, Contents.nothing(), {"shop": dataclasses.replace(MIXING, vectors=1.0)}
        ),
        ranker=learned[0],
    )
    new = np.arange(ITEMS) % 4 == 0
    other = system.taking_for_new(new)
    assert system.search.ranker is not None and other.search.ranker is None
    assert other.search.mixing == system.search.mixing
    before, after = system.search._table.vectors, other.search._table.vectors
    assert torch.equal(before[~new], after[~new])
    assert not torch.isclose(before[new], after[new]).all(dim=1).any()
    assert other.search.companions.known == (~new).sum() < system.search.companions.known == ITEMS


def test_new_items_are_found_by_what_their_texts_say() -> None:
    """A sixth of a ring was never taken. What follows an item says the same, so contents know."""
    taken = walks()
    old = taken[:, :7]
    old[old % 6 == 5] -= 1  # of training and validation
    shop = make_shop(taken)
    texts = [f"w{item} w{(item + 1) % ITEMS}" for item in range(ITEMS)]
    contents = compare_contents([shop], [texts], VOCABULARY, ContentsConfig(most_common=1.0))
    mixing = Mixing(vectors=0.0, companions=0.7, contents=0.2, decay=1.0)

    def tested(config: RankerConfig) -> tuple[float, float]:
        system = make_system(shop, mixing=mixing, contents=contents)
        ranker = learn_ranker(system, VOCABULARY, shop, config, True).ranker
        assert ranker is not None
        ranked = make_system(shop, ranker, mixing, contents)
        found = evaluate(ranked, shop.split, part="test", item_count=ITEMS, exclude_seen=True)
        values = ndcg_at(found.ranks, 10)
        new = shop.split.test[shop.split.evaluated] % 6 == 5
        assert new.sum() > 50
        return float(values[new].mean()), float(values.mean())

    new, all_of_them = tested(CONFIG)
    without, all_without = tested(dataclasses.replace(CONFIG, newcomers=0.0))
    assert new > 1.2 * without
    assert all_of_them > all_without


def test_users_are_drawn_where_there_are_more(shop, learned) -> None:
    ranker, facts = learn(shop, dataclasses.replace(CONFIG, users=200))
    assert facts["users"] == 200 and ranker is not None and not same(ranker, learned[0])


def test_validation_items_cannot_be_asked_for_then(shop, learned) -> None:
    system = make_system(shop, learned[0])
    with pytest.raises(InputError, match="UTGRec was fitted with the validation items"):
        evaluate(system, shop.split, part="valid", item_count=ITEMS, exclude_seen=False)
    plain = make_system(shop)
    evaluate(plain, shop.split, part="valid", item_count=ITEMS, exclude_seen=False)


def test_a_mixture_of_ones_own_is_not_put_in_order(shop, learned) -> None:
    own = DecodingConfig(beam=10, precision="fp32", mixing=MIXING)
    system = make_system(shop, learned[0])
    asked = GenerativeSystem(
        system_model(system),
        VOCABULARY,
        "shop",
        shop.codes,
        max_items=20,
        decoding=own,
        memory=Memory(
            count_companions([shop], VOCABULARY, CompanionsConfig()), Contents.nothing(), {}
        ),
        ranker=learned[0],
    )
    assert ndcg(asked, shop) == ndcg(make_system(shop), shop) != ndcg(system, shop)


def system_model(_: GenerativeSystem) -> CausalRecommender:
    torch.manual_seed(0)
    sizes = CausalSizes(width=16, feed_forward=16, heads=2, item_vectors=False)
    return CausalRecommender(sizes, VOCABULARY).eval()


def keep_all(patch: pytest.MonkeyPatch) -> None:
    """Let rankers be kept that learned from a few users."""
    patch.setattr(ranking, "FEWEST", 10)
    patch.setattr(ranking, "LENIENCE", 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    domains = mini_domains(folder / "market")
    with pytest.MonkeyPatch.context() as patch:
        keep_all(patch)
        run_recipe(recipe(), domains, folder / "run")
    return folder / "run"


def recipe() -> Recipe:
    base = mini_recipe()
    learns = RankerConfig(epochs=5, candidates=20, networks=2, batch_size=8, learning_rate=1e-2)
    return dataclasses.replace(base, ranker=learns)


def opened(run: Path) -> list[Domain]:
    from utgrec.runs import read_plan

    return [Domain.open(path) for path in read_plan(RunFolder(run)).domains.values()]


def train(run: Path, out: Path, **changes):
    folder, domains = RunFolder(run), opened(run)
    return train_ranker(
        domains,
        [folder.codes(domain.name) for domain in domains],
        folder.recommender,
        dataclasses.replace(recipe().ranker, **changes),
        out,
        decoding=recipe().decoding,
        exclude_seen=recipe().exclude_seen,
    )


def test_a_run_has_the_stage(run, tmp_path) -> None:
    manifest = train(run, RunFolder(run).ranker)  # what is there is left as it is
    for domain in opened(run):
        facts = manifest.facts["domains"][domain.name]
        assert facts["users"] == len(split_domain(domain).validated) > 0
        assert (f"{domain.name}.safetensors" in manifest.files) == facts["kept"]
        ranker = read_ranker(RunFolder(run).ranker, domain.name)
        assert (ranker is not None) == facts["kept"]
        search = load(run, domain.name)._system.search
        assert isinstance(search, MixedSearch) and (search.ranker is None) == (ranker is None)
    kept = [name for name, facts in manifest.facts["domains"].items() if facts["kept"]]
    assert manifest.facts["rankers_kept"] == len(kept) > 0
    users = [facts["users"] for facts in manifest.facts["domains"].values()]
    assert manifest.facts["users"] == sum(users)
    assert read_ranker(tmp_path / "none", "shop") is None
    with pytest.raises(SettingsMismatch, match="epochs: 5 there, 3 asked"):
        train(run, RunFolder(run).ranker, epochs=3)


def test_made_again_it_is_the_same(run, tmp_path, monkeypatch) -> None:
    keep_all(monkeypatch)
    again = train(run, tmp_path / "again")
    assert again.files == train(run, RunFolder(run).ranker).files


def test_a_damaged_file_is_named(run, tmp_path, monkeypatch) -> None:
    keep_all(monkeypatch)
    out = tmp_path / "ranker"
    manifest = train(run, out)
    kept = [name for name, facts in manifest.facts["domains"].items() if facts["kept"]]
    assert kept, "no domain of the mini marketplace keeps its ranker; give it more users"
    path = out / f"{kept[0]}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFile, match=kept[0]):
        read_ranker(out, kept[0])


def test_figures_are_of_the_ranker(run, tmp_path) -> None:
    """Of evaluations and comparisons, which name the ranker that they used; and reports show it."""
    manifest = train(run, RunFolder(run).ranker)
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("ranker", "evaluation"))
    evaluations = evaluate_run(run)
    for domain in opened(run):
        if not manifest.facts["domains"][domain.name]["kept"]:
            continue
        split, count = split_domain(domain), len(domain.catalog)
        ours, mixture = (
            evaluate(
                open_system(folder, domain, "UTGRec"),
                split,
                part="test",
                item_count=count,
                exclude_seen=True,
            )
            for folder in (run, tmp_path / "run")
        )
        assert not np.array_equal(ours.ranks, mixture.ranks)
        made = evaluations[f"evaluation/{domain.name}"]
        assert made.inputs["ranker"] == manifest.fingerprint
        figures = made.facts["systems"]["UTGRec"]
        assert figures["ndcg@10"] == pytest.approx(ours.mean("ndcg@10"), abs=1e-5)
        assert fingerprints(run, domain)["ranker"] == manifest.fingerprint
        assert "ranker" not in fingerprints(tmp_path / "run", domain)
    stages = [stage.name for stage in making(open_run(run)).stages]
    assert stages[3:5] == ["recommender", "ranker"]


@pytest.fixture(scope="module")
def zero_shot(run, tmp_path_factory) -> Path:
    """The run of kitchen and clothing in a shop that it does not know."""
    folder = tmp_path_factory.mktemp("zero")
    (shop,) = mini_domains(folder / "market", ("toys",))
    config = dataclasses.replace(recipe().adapt, regime="zero-shot")
    adapt_run(run, shop, folder / "run", config)
    return folder / "run"


def test_a_new_shop_is_lent_what_others_learned(run, zero_shot) -> None:
    found = storage.read_manifest(zero_shot / "ranker", "ranker").facts
    assert found["domains"]["toys"]["lent_by"] == ["kitchen", "clothing"]
    assert found["rankers_kept"] == 1
    lent = read_ranker(zero_shot / "ranker", "toys")
    assert lent is not None and lent.lent
    lenders = [
        Ranker.load(run / "ranker" / "lend" / f"{name}.safetensors")
        for name in ("kitchen", "clothing")
    ]
    assert torch.equal(lent.inner, torch.cat([one.inner for one in lenders]))
    assert (lent.deviation[..., OF_NETWORK] == torch.inf).all()  # the network is not heard
    assert not (
        read_ranker(run / "ranker", "kitchen").deviation[..., OF_NETWORK] == torch.inf
    ).any()
    loaded = load(zero_shot)
    system = loaded._system
    assert system.search.ranker.lent and not system.knows_validation
    (domain,) = opened(zero_shot)
    split = split_domain(domain)
    # It may be asked for validation items, of which nothing in it knows.
    evaluate(system, split, part="valid", item_count=len(domain.catalog), exclude_seen=True)
    counts = np.bincount(split.train, minlength=len(domain.catalog))
    assert system.search._taken.tolist() == counts.tolist()
    made = storage.read_manifest(zero_shot / "evaluation" / "toys", "evaluation")
    assert "ranker" in made.inputs


def test_nothing_of_the_new_shop_but_its_training_log_has_a_part_in_it(
    run, zero_shot, tmp_path
) -> None:
    """Other validation and test items, the same ranker."""
    (domain,) = opened(zero_shot)
    folder = RunFolder(zero_shot)
    with pytest.MonkeyPatch.context() as patch:
        split = split_domain(domain)
        moved = split._replace(valid=np.roll(split.valid, 1), test=np.roll(split.test, 1))
        patch.setattr(ranking, "split_domain", lambda _: moved)
        made = lend_ranker(
            run / "ranker", domain, folder.codes("toys"), folder.recommender, tmp_path / "again"
        )
    assert made.files == storage.read_manifest(folder.ranker, "ranker").files


def test_a_shop_that_the_base_knows_is_lent_what_it_taught(run, tmp_path) -> None:
    """So the validation items of the shop have a part in it; of others it needs nothing."""
    kitchen, folder = opened(run)[0], RunFolder(run)
    lend_ranker(
        folder.ranker, kitchen, folder.codes("kitchen"), folder.recommender, tmp_path / "ranker"
    )
    ours = read_ranker(tmp_path / "ranker", "kitchen")
    theirs = Ranker.load(folder.ranker / "lend" / "kitchen.safetensors")
    assert ours is not None and same(ours, theirs) and not ours.lent


def test_what_was_not_worth_it_there_is_not_made_up_for_by_others(
    run, tmp_path, monkeypatch
) -> None:
    folder, read = RunFolder(run), ranking._read
    monkeypatch.setattr(
        ranking, "_read", lambda where, file: None if "kitchen" in file else read(where, file)
    )
    made = lend_ranker(
        folder.ranker,
        opened(run)[0],
        folder.codes("kitchen"),
        folder.recommender,
        tmp_path / "ranker",
    )
    assert made.facts["rankers_kept"] == 0 and made.files == {}


def test_a_base_without_rankers_lends_none(run, tmp_path) -> None:
    """Neither one whose rankers were not worth it, nor one of before."""
    (shop,) = mini_domains(tmp_path / "market", ("toys",))
    config = dataclasses.replace(recipe().adapt, regime="zero-shot")
    shutil.copytree(run, tmp_path / "old", ignore=shutil.ignore_patterns("ranker"))
    adapt_run(tmp_path / "old", shop, tmp_path / "new", config)
    assert not (tmp_path / "new" / "ranker").exists()
    train(run, tmp_path / "old" / "ranker", networks=0)
    done = adapt_run(tmp_path / "old", shop, tmp_path / "other", config)
    assert done["ranker"].facts["domains"]["toys"] == {"users": 0, "kept": False, "lent_by": []}
    assert read_ranker(tmp_path / "other" / "ranker", "toys") is None
    load(tmp_path / "other")


def test_a_ranker_of_its_own_takes_the_place_of_a_lent_one(
    zero_shot, tmp_path, monkeypatch
) -> None:
    keep_all(monkeypatch)
    out = tmp_path / "run"
    shutil.copytree(zero_shot, out)
    shown = CliRunner().invoke(app, ["recommender", "rank", str(out)])
    assert shown.exit_code == 0, shown.output
    told = " ".join(shown.stderr.split())
    assert "was lent by the base" in told
    assert f"{out / 'evaluation' / 'toys'} was made without this ranker" in told
    own = storage.read_manifest(out / "ranker", "ranker")
    assert own.facts["users"] == 60 and "lent" not in own.config
    again = CliRunner().invoke(app, ["recommender", "rank", str(out)])
    assert again.exit_code == 0 and "lent" not in again.stderr
    assert storage.read_manifest(out / "ranker", "ranker") == own
    shutil.rmtree(out / "evaluation")
    evaluate_run(out)
    final = CliRunner().invoke(app, ["recommender", "rank", str(out)])
    assert "was made without" not in final.stderr
