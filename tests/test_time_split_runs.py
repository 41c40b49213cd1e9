"""With a split by time, a whole run cannot feel what comes after the cut; a leak would be felt."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mini_run import mini_domains, mini_recipe
from utgrec import storage
from utgrec.adaptation import plan_adaptation
from utgrec.catalog import Domain, write_domain
from utgrec.data.resplit import resplit_domain
from utgrec.data.split import leave_one_out, split_domain
from utgrec.data.splitting import SplitOptions
from utgrec.errors import BadConfig, SettingsMismatch
from utgrec.evaluation.baselines import FAMILIES, FitInput
from utgrec.evaluation.protocol import evaluate, make_query
from utgrec.recommender import train as recommender_training
from utgrec.runs import RunFolder, evaluate_run, run_recipe, train_run
from utgrec.tokenizer import codes as codes_stage
from utgrec.tokenizer import train as tokenizer_training

BY_TIME = SplitOptions(kind="global-time", valid_share=0.15, test_share=0.15)


def write_shop(domain: Domain, out: Path, *, same_future: bool) -> Path:
    """A domain without pictures; else with other items in everything from the test date on."""
    rng = np.random.default_rng(0)
    late = (domain.timestamps >= (domain.split.test_from or 0)) & (not same_future)
    count = len(domain.catalog)
    items = np.where(late, (domain.items + rng.integers(1, count, len(late))) % count, domain.items)
    users = np.repeat(np.arange(domain.user_count), np.diff(domain.offsets))
    nothing = pa.nulls(count, pa.string())
    with storage.new_folder(out) as folder:
        write_domain(
            folder,
            name=domain.name,
            items=domain.catalog.table.set_column(3, "image", nothing),
            user_ids=domain.user_ids,
            interactions=pa.table(
                {
                    "user": users.astype(np.int32),
                    "item": items.astype(np.int32),
                    "timestamp": domain.timestamps,
                }
            ),
            config={},
            inputs={},
            facts={},
            split=domain.split,
        )
    return out


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A shop that is split by time, its twin with another future, and the shop as it was."""
    folder = tmp_path_factory.mktemp("by-time")
    plain = mini_domains(folder, ("kitchen",))[0]
    resplit_domain(plain, BY_TIME, folder / "cut", name="kitchen-time")
    domain = Domain.open(folder / "cut")
    return [
        write_shop(domain, folder / "first", same_future=True),
        write_shop(domain, folder / "twin", same_future=False),
        plain,
    ]


def learned(run: Path) -> dict[str, str]:
    """Weights and codes of a run → their hashes."""
    kinds = (".safetensors", "codes.parquet", "losses.jsonl")
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name.endswith(kinds) and ".work" not in str(path)
    }


def test_a_run_does_not_feel_the_future(
    shops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = mini_recipe()
    for name, shop in (("one", shops[0]), ("other", shops[1])):
        train_run(recipe, [shop], tmp_path / name)
    assert Domain.open(shops[0]).fingerprint != Domain.open(shops[1]).fingerprint
    same = learned(tmp_path / "one")
    assert len(same) > 4 and same == learned(tmp_path / "other")
    # A leak anywhere is found: each stage in turn forgets the rule of the domain.
    for place, (module, part) in enumerate(
        ((tokenizer_training, "tokenizer/"), (codes_stage, "codes/"), (recommender_training, "rec"))
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, "split_domain", leave_one_out)
            leaks = [tmp_path / f"leak-{place}-{number}" for number in range(2)]
            for leak, shop in zip(leaks, shops, strict=False):
                train_run(recipe, [shop], leak)
        one, other = map(learned, leaks)
        assert any(one[name] != other[name] for name in one if name.startswith(part)), part
    # The report of every stage says which split it was.
    evaluate_run(tmp_path / "one")
    folder = RunFolder(tmp_path / "one")
    words = Domain.open(shops[0]).split.words
    for stage, name in (
        (folder.tokenizer, "tokenizer"),
        (folder.codes("kitchen-time"), "codes"),
        (folder.recommender, "recommender"),
        (folder.evaluation("kitchen-time"), "evaluation"),
    ):
        assert storage.read_manifest(stage, name).facts["split"] == words
    evaluation = folder.evaluation("kitchen-time")
    assert json.loads((evaluation / "comparison.json").read_text())["split"] == words
    assert words in (evaluation / "comparison.md").read_text()


@pytest.mark.parametrize("name", ["popularity", "itemknn"])
def test_baselines_do_not_feel_the_future(shops: list[Path], tmp_path: Path, name: str) -> None:
    family, answers, leaks = FAMILIES[name], [], []
    for number, shop in enumerate(shops[:2]):
        domain = Domain.open(shop)
        for split, found in ((split_domain(domain), answers), (leave_one_out(domain), leaks)):
            given = FitInput(domain, split, True, 0, tmp_path / f"{number}-{len(found)}")
            system = family.fit(given, family.trials(1, exclude_seen=True)[0])
            cut = split_domain(domain)
            query = make_query(cut, cut.validated, "valid")
            found.append(system.recommend(query, 10, exclude_seen=False))
    np.testing.assert_array_equal(answers[0].items, answers[1].items)
    np.testing.assert_array_equal(answers[0].scores, answers[1].scores)
    assert (leaks[0].scores != leaks[1].scores).any()


def test_the_protocol_asks_who_has_a_target(shops: list[Path], tmp_path: Path) -> None:
    domain = Domain.open(shops[0])
    split = split_domain(domain)
    assert 0 < len(split.validated) < domain.user_count
    assert split.validated.tolist() != split.evaluated.tolist()
    system = FAMILIES["popularity"].fit(
        FitInput(domain, split, True, 0, tmp_path),
        FAMILIES["popularity"].trials(1, exclude_seen=True)[0],
    )
    for part, users in (("valid", split.validated), ("test", split.evaluated)):
        found = evaluate(system, split, part=part, item_count=60, exclude_seen=True)  # type: ignore[arg-type]
        assert found.users.tolist() == users.tolist()
    np.testing.assert_array_equal(found.history_lengths, split.known_lengths[split.evaluated])


def test_a_run_never_mixes_splits(shops: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"same split.*kitchen-time: global time"):
        run_recipe(mini_recipe(), [shops[0], shops[2]], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_base_that_knows_the_future_is_refused(shops: list[Path], tmp_path: Path) -> None:
    train_run(mini_recipe(), [shops[2]], tmp_path / "base")
    domain = Domain.open(shops[0])
    with pytest.raises(SettingsMismatch, match="may know what is the future"):
        plan_adaptation(tmp_path / "base", domain, shops[0], tmp_path / "out")
