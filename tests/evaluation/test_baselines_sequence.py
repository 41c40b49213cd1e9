"""SASRec and BERT4Rec: windows, losses, what may be read, and a shop whose answer is known."""

import dataclasses
import logging
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_shop import ITEMS, fit_input, noisy_histories, ring_histories, write_shop

from utgrec.errors import EmptyDomain
from utgrec.evaluation.baselines import FAMILIES
from utgrec.evaluation.baselines.sequence_config import BERT4RecConfig, SASRecConfig
from utgrec.evaluation.baselines.sequence_model import BERT4Rec, SASRec
from utgrec.evaluation.baselines.windows import WindowBatches, cut_windows
from utgrec.evaluation.protocol import evaluate, make_query

SMALL = {"width": 16, "layers": 2, "max_items": 8, "batch_items": 64, "min_steps": 1}


def make(kind, config, seed=0):
    torch.manual_seed(seed)
    return kind(ITEMS, config).eval()


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop") / "ring", ring_histories())


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("width", [2, 3, 5, 100])
def test_every_item_is_a_successor_once(make_split, random_histories, width):
    split = make_split(random_histories)
    windows = cut_windows(split, width, overlap=1)
    lengths = windows.ends - windows.starts
    assert lengths.min() >= 2 and lengths.max() <= width
    guessed = np.concatenate(
        [np.arange(start + 1, end) for start, end in zip(windows.starts, windows.ends, strict=True)]
    )
    lengths_of_users = np.diff(split.offsets)
    firsts = split.offsets[:-1][lengths_of_users > 0]
    assert sorted(guessed) == sorted(set(range(len(split.train))) - set(firsts))
    users = np.repeat(np.arange(len(lengths_of_users)), lengths_of_users)
    assert (users[windows.starts] == users[windows.ends - 1]).all()  # none crosses a border


def test_windows_by_hand(make_split):
    split = make_split([[0, 1, 2, 3, 4, 8, 9], [5], [6, 7]])
    windows = cut_windows(split, 3, overlap=1)
    pieces = [split.train[a:b].tolist() for a, b in zip(windows.starts, windows.ends, strict=True)]
    assert pieces == [[2, 3, 4], [6, 7], [0, 1, 2]]
    apart = cut_windows(split, 3, overlap=0)
    pieces = [split.train[a:b].tolist() for a, b in zip(apart.starts, apart.ends, strict=True)]
    assert pieces == [[2, 3, 4], [6, 7], [0, 1]]


def test_batches_hold_all_windows_and_like_many_items(make_split):
    rng = np.random.default_rng(3)
    split = make_split([rng.integers(0, 40, rng.integers(1, 30)).tolist() for _ in range(500)])
    windows = cut_windows(split, 20, overlap=1)
    batches = WindowBatches(windows, batch_items=200, padding=40, seed=5)
    filled, room = [], []
    first, again = [], WindowBatches(windows, batch_items=200, padding=40, seed=5)
    for epoch in range(2):
        rows = []
        for place in range(batches.per_epoch):
            step = epoch * batches.per_epoch + place
            batch = batches(step)
            torch.testing.assert_close(batch, again(step), rtol=0, atol=0)
            count = int((batch != 40).sum())
            assert 150 <= count <= 320, count
            filled.append(count)
            room.append(batch.numel())
            rows += [tuple(row[row != 40].tolist()) for row in batch]
        expected = [
            tuple(windows.items[start:end].tolist())
            for start, end in zip(windows.starts, windows.ends, strict=True)
        ]
        assert sorted(rows) == sorted(expected)
        first.append(rows)
    assert first[0] != first[1]
    assert sum(filled) > 0.8 * sum(room)  # little padding
    torch.testing.assert_close(again(1), batches(1), rtol=0, atol=0)  # whatever came before


def test_a_shop_without_order_is_refused(tmp_path):
    domain = write_shop(tmp_path / "shop", [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(EmptyDomain, match="no user has two training items"):
        FAMILIES["sasrec"].fit(fit_input(domain, tmp_path / "work"), SASRecConfig(**SMALL))


# --------------------------------------------------------------------------- what may be read


def test_sasrec_does_not_read_ahead():
    model = make(SASRec, SASRecConfig(**SMALL))
    tokens = torch.randint(ITEMS, (5, 8), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % ITEMS
    before, after = model.read(tokens), model.read(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert ((before - after)[:, 5:].abs().amax(dim=2) > 1e-3).all()


def test_bert4rec_reads_both_ways_but_no_padding():
    model = make(BERT4Rec, BERT4RecConfig(**SMALL))
    tokens = torch.randint(ITEMS, (1, 8), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % ITEMS
    assert ((model.read(tokens) - model.read(changed))[0].abs().amax(dim=1) > 1e-4).all()
    padded = torch.cat([tokens, torch.full((1, 3), model.padding)], dim=1)
    torch.testing.assert_close(model.read(padded)[:, :8], model.read(tokens))


@pytest.mark.parametrize("kind", [SASRec, BERT4Rec])
def test_only_the_newest_items_are_read(kind):
    config = (SASRecConfig if kind is SASRec else BERT4RecConfig)(**SMALL)
    model = make(kind, config)
    room = config.max_items - (kind is BERT4Rec)
    history = np.arange(20)
    changed = np.where(np.arange(20) < 20 - room, 29, history)
    torch.testing.assert_close(model.scores([history]), model.scores([changed]))
    changed[20 - room] = 29
    assert (model.scores([history]) - model.scores([changed])).abs().max() > 1e-3
    together = model.scores([history, history[:3], history[:0]])  # an empty one as well
    alone = torch.cat([model.scores([h]) for h in (history, history[:3], history[:0])])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------- losses


def test_the_loss_is_the_cross_entropy_of_real_places():
    model = make(SASRec, SASRecConfig(**SMALL))
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, model.padding, model.padding]])
    expected = []
    for row, length in ((0, 4), (1, 2)):
        states = model.read(tokens[row : row + 1, : length - 1])[0]
        logits = states @ model.items.weight[:ITEMS].T
        expected.append(F.cross_entropy(logits, tokens[row, 1:length], reduction="none"))
    torch.testing.assert_close(model(tokens)["loss"], torch.cat(expected).mean())


def test_many_negatives_give_the_whole_softmax():
    full = make(SASRec, SASRecConfig(**SMALL))
    sampled = make(SASRec, SASRecConfig(**SMALL, negatives=200_000))
    sampled.load_state_dict(full.state_dict())
    tokens = torch.randint(ITEMS, (6, 5), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sampled(tokens)["loss"], full(tokens)["loss"], rtol=0, atol=5e-3)
    few = make(SASRec, SASRecConfig(**SMALL, negatives=3))
    few.load_state_dict(full.state_dict())
    sums = torch.stack([few(tokens)["loss"] for _ in range(300)])
    # Near, though 3 stand for 29; without their weight it would be below log(4).
    assert abs(sums.mean() - full(tokens)["loss"]) < 0.3
    assert full(tokens)["loss"] > 3


def test_bert4rec_hides_its_share_and_one_at_least():
    config = BERT4RecConfig(**SMALL, mask_share=0.3, last_share=0.0)
    model, seen = make(BERT4Rec, config), []
    model.softmax_loss = lambda states, targets: seen.append(len(targets)) or states.sum()
    long, short = torch.zeros(2000, 8, dtype=torch.int64), torch.zeros(2000, 2, dtype=torch.int64)
    model(long)
    model(short)
    assert abs(seen[0] / 16000 - (0.3 + 0.7**8 / 8)) < 0.02
    assert seen[1] >= 2000
    # The newest item alone, where that is asked: item 5 stands at the end of each window.
    model = make(BERT4Rec, dataclasses.replace(config, last_share=1.0))
    model.softmax_loss = lambda states, targets: seen.append(targets) or states.sum()
    model(torch.tensor([[1, 2, 3, 5], [1, 5, model.padding, model.padding]]))
    assert seen[2].tolist() == [5, 5]


# ------------------------------------------------------------------------------ the known answer


@pytest.mark.parametrize("name", ["sasrec", "sasrec-sampled", "bert4rec"])
def test_the_next_item_of_a_ring_is_learned(name, ring, tmp_path):
    family = FAMILIES[name]
    settings = dataclasses.replace(
        family.trials(1)[0],
        width=32,
        max_items=8,
        batch_items=128,
        dropout=0.1,
        weight_decay=0.01,
        min_steps=1,
        learning_rate=1e-2,
        epochs=20,
        patience=0,
    )
    if name == "bert4rec":  # guesses fewer items per window, and falls apart at high rates
        settings = dataclasses.replace(settings, learning_rate=3e-3, epochs=40, last_share=0.5)
    given = fit_input(ring, tmp_path)
    system = family.fit(given, settings)
    result = evaluate(
        system, given.split, part="test", item_count=ITEMS, exclude_seen=False, ks=(1, 10)
    )
    assert result.mean("recall@1") > 0.9
    popular = FAMILIES["popularity"].fit(given, FAMILIES["popularity"].trials(1)[0])
    chance = evaluate(
        popular, given.split, part="test", item_count=ITEMS, exclude_seen=False, ks=(1, 10)
    )
    assert chance.mean("recall@1") < 0.2


def test_the_weights_of_the_best_epoch_are_kept(tmp_path, caplog):
    domain = write_shop(tmp_path / "shop", noisy_histories())
    given = fit_input(domain, tmp_path / "work")
    settings = SASRecConfig(**SMALL, epochs=30, patience=2, learning_rate=1e-2)
    with caplog.at_level(logging.INFO, logger="utgrec.training"):
        system = FAMILIES["sasrec"].fit(given, settings)
    figures = [float(found) for found in re.findall(r"'ndcg@10': ([\d.e-]+)", caplog.text)]
    assert 3 <= len(figures) < 30 and figures.index(max(figures)) == len(figures) - 3
    result = evaluate(system, given.split, part="valid", item_count=ITEMS, exclude_seen=True)
    assert result.mean("ndcg@10") == pytest.approx(max(figures))


def test_a_killed_training_goes_on(ring, tmp_path, monkeypatch):
    settings = SASRecConfig(**SMALL, epochs=3, validation_users=20)
    query = make_query(fit_input(ring, tmp_path).split, np.arange(20), "test")
    family = FAMILIES["sasrec"]
    whole = family.fit(fit_input(ring, tmp_path / "a"), settings).model.scores(query.histories)

    def stop(work, done, total, note=""):
        if done == 9:
            raise KeyboardInterrupt

    # A checkpoint after each step, so that the kill loses little.
    from utgrec.training.standing import Standing

    monkeypatch.setattr(Standing, "checkpoint_due", property(lambda run: True))
    given = fit_input(ring, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        family.fit(given, settings, stop)
    resumed = family.fit(given, settings).model.scores(query.histories)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
