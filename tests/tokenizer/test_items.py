"""What is read of the items once: words, picture features, latents."""

import logging

import numpy as np
import pytest
import torch
from small_items import LATENTS, MAX_TEXT_TOKENS, TEXTS, draw_picture

from utgrec.tokenizer.backbone import open_picture
from utgrec.tokenizer.items import build_prompts, like_lengths, prompt_lengths, read_items
from utgrec.tokenizer.shapes import round_up


def test_words_are_cut_and_nothing_else_is(backbone, items):
    full = backbone.token_ids(TEXTS)
    assert max(map(len, full)) > MAX_TEXT_TOKENS
    for ids, cut in zip(full, items.words, strict=True):
        assert cut.tolist() == ids[:MAX_TEXT_TOKENS]
    assert len(items.words[1]) == 0


def test_features_and_latents_belong_to_their_items(backbone, codec, items, picture_files):
    assert len(items) == len(TEXTS)
    for row, path in enumerate(picture_files):
        features = items.features.take(np.array([row]))
        if path is None:
            assert items.latent_rows[row] == -1
            assert items.grids[row].tolist() == [0, 0]
            assert len(features) == 0
            continue
        picture = open_picture(path)
        seen = backbone.picture_features([picture])
        assert items.grids[row].tolist() == seen.grids[0].tolist()
        torch.testing.assert_close(features, seen.features, atol=1e-4, rtol=1e-4)
        latents = items.latents[items.latent_rows[row]]
        torch.testing.assert_close(latents, codec.encode([picture])[0], atol=1e-4, rtol=1e-4)
    assert sorted(items.latent_rows[items.latent_rows >= 0]) == list(range(len(items.latents)))
    assert items.unreadable == []


def test_how_many_pictures_are_read_at_once_does_not_matter(
    backbone, codec, items, picture_files, monkeypatch
):
    monkeypatch.setattr("utgrec.tokenizer.picture_reading.AT_ONCE", 2)
    told = []
    again = read_items(
        TEXTS,
        picture_files,
        backbone,
        codec,
        MAX_TEXT_TOKENS,
        lambda work, done, total, note="": told.append((done, total)),
    )
    every, shown = np.arange(len(TEXTS)), np.arange(len(items.latents))
    for ours, theirs in (
        (again.features.take(every), items.features.take(every)),
        (again.latents[shown], items.latents[shown]),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert np.array_equal(again.latent_rows, items.latent_rows)
    assert told == [(2, 6), (4, 6), (6, 6)]


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_an_unreadable_picture_leaves_its_item_to_its_words(
    backbone, codec, items, picture_files, tmp_path, caplog, monkeypatch, at_once
):
    monkeypatch.setattr("utgrec.tokenizer.picture_reading.AT_ONCE", at_once)
    (tmp_path / "broken.png").write_bytes(b"broken")
    paths = [*picture_files]
    paths[0], paths[3], paths[6] = tmp_path / "broken.png", tmp_path / "missing.png", None
    with caplog.at_level(logging.WARNING):
        read = read_items(TEXTS, paths, backbone, codec, MAX_TEXT_TOKENS)
    assert read.unreadable == [0, 3]
    assert "broken.png" in caplog.text
    assert "missing.png" in caplog.text
    assert [row for row in range(8) if read.latent_rows[row] >= 0] == [1, 4, 7]
    words_only = read_items(TEXTS, [None] * 8, backbone, codec, MAX_TEXT_TOKENS)
    for row in range(8):
        expected = items if row in (1, 4, 7) else words_only
        ours = build_prompts(read, np.array([row]), backbone, 3)
        theirs = build_prompts(expected, np.array([row]), backbone, 3)
        for name in ("tokens", "positions", "lengths", "picture"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        torch.testing.assert_close(ours.features, theirs.features, atol=1e-4, rtol=1e-4)


def test_without_any_picture(backbone, codec):
    read = read_items(TEXTS, [None] * 8, backbone, codec, MAX_TEXT_TOKENS)
    assert read.features.take(np.arange(8)).shape == (0, 32)
    assert read.latents.shape == (0, LATENTS.grid, LATENTS.channels)
    assert not build_prompts(read, np.arange(8), backbone, 3).picture.any()


def test_padding_is_on_the_right_and_never_a_picture(backbone, items):
    prompts = build_prompts(items, np.arange(8), backbone, 3)
    width = prompts.tokens.shape[1]
    assert 0 <= width - int(prompts.lengths.max()) < 8  # a round number, to have few widths
    assert width % 8 == 0
    beyond = torch.arange(width) >= prompts.lengths[:, None]
    assert not prompts.picture[beyond].any()
    assert int(prompts.picture.sum()) == len(prompts.features)


def test_prompt_lengths_are_known_before_prompts_are_laid_out(items, backbone):
    prompts = build_prompts(items, np.arange(len(items)), backbone, 3)
    assert prompt_lengths(items, backbone, 3).tolist() == prompts.lengths.tolist()


def test_a_picture_far_larger_than_the_model_reads_is_made_smaller(backbone, codec, tmp_path):
    draw_picture(700, 500, seed=0).save(tmp_path / "large.png")
    read = read_items(["x"], [tmp_path / "large.png"], backbone, codec, MAX_TEXT_TOKENS)
    assert 4 <= read.grids.prod() <= 12


class TestGroups:
    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_less_than_a_tenth_is_padding(self, count):
        lengths = np.random.default_rng(0).geometric(0.02, 256).clip(max=128) + 20
        groups = like_lengths(lengths, count, 0)
        assert sorted(np.concatenate(groups)) == list(range(256))
        padded = sum(len(group) * round_up(lengths[group].max()) for group in groups)
        assert lengths.sum() / padded > (0.9 if count < 7 else 0.8)
        assert lengths.sum() / (256 * lengths.max()) < 0.6  # in one group

    def test_a_long_tail_does_not_leave_anybody_without_items(self):
        lengths = np.array([5] * 20 + [50, 500, 5000])
        for count in (1, 2, 3, 5, 23):
            groups = like_lengths(lengths, count, 0)
            assert min(len(group) for group in groups) >= count

    def test_no_more_than_fit(self):
        for at_once in (1, 3, 10):
            groups = like_lengths(np.arange(100), 2, at_once)
            assert all(len(group) <= 2 * at_once + 1 for group in groups)

    def test_what_rounding_makes_equal_is_one_group(self):
        assert len(like_lengths(np.arange(41, 49).repeat(4), 1, 0)) == 1
        assert len(like_lengths(np.arange(41, 49).repeat(4), 1, 20)) == 2
