"""Our prompts, positions and forward pass are those of transformers' own Qwen2-VL."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from small_items import BACKBONE, SHAPES, TEXTS, draw_picture

from utgrec.errors import BadConfig, BadImage, MissingStage
from utgrec.tokenizer.backbone import WITH_IMAGE, WITHOUT_IMAGE, Backbone, open_picture
from utgrec.tokenizer.items import build_prompts
from utgrec.tokenizer.tiny import TinyBackboneConfig, create_tiny_backbone

LENGTH = 3


def own_inputs(backbone, items, row, picture_files):
    """An item's prompt as transformers wants it: ids, kinds of token, pixels and grid.

    The code queries stand on ids that nothing else in the prompt uses.
    """
    prompts = build_prompts(items, np.array([row]), backbone, LENGTH)
    ids = prompts.tokens[:, : prompts.lengths[0]].clone()  # without padding
    used = set(ids[0, :-LENGTH].tolist())
    free = [token for token in range(len(backbone.embeddings)) if token not in used]
    ids[0, -LENGTH:] = torch.tensor(free[-LENGTH:])
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == backbone.model.config.image_token_id).int(),
    }
    if picture_files[row] is not None:
        seen = backbone.picture_processor(
            images=[open_picture(picture_files[row])], return_tensors="pt"
        )
        inputs |= {
            "pixel_values": seen["pixel_values"],
            "image_grid_thw": seen["image_grid_thw"],
        }
    return prompts, inputs


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_positions_are_those_of_transformers(backbone, items, picture_files, row):
    prompts, inputs = own_inputs(backbone, items, row, picture_files)
    inputs.pop("pixel_values", None)
    positions, _ = backbone.model.get_rope_index(**inputs)
    assert torch.equal(prompts.positions[:, :, : prompts.lengths[0]], positions)


@pytest.mark.parametrize("row", range(len(TEXTS)))
@torch.no_grad()
def test_the_forward_pass_is_that_of_transformers(backbone, items, picture_files, row):
    prompts, inputs = own_inputs(backbone, items, row, picture_files)
    queries = torch.randn(LENGTH, 32, generator=torch.Generator().manual_seed(row))
    theirs = copy.deepcopy(backbone.model)
    theirs.language_model.embed_tokens.weight[inputs["input_ids"][0, -LENGTH:]] = queries
    expected = theirs(**inputs).last_hidden_state[0, -LENGTH:]
    torch.testing.assert_close(backbone(prompts, queries)[0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_and_company_change_nothing(backbone, items):
    queries = torch.randn(LENGTH, 32, generator=torch.Generator().manual_seed(0))
    orders = [[0, 1, 2, 3, 4, 5, 6, 7], [7, 3, 1], [5, 0, 6, 2, 4]]
    together = [
        backbone(build_prompts(items, np.array(order), backbone, LENGTH), queries)
        for order in orders
    ]
    for row in range(len(TEXTS)):
        alone = backbone(build_prompts(items, np.array([row]), backbone, LENGTH), queries)[0]
        for order, states in zip(orders, together, strict=True):
            if row in order:
                found = states[order.index(row)]
                torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_all_parts_of_the_prompt_are_read(backbone, items):
    """Words, picture and queries each change the states; the states differ by position."""
    queries = torch.randn(LENGTH, 32, generator=torch.Generator().manual_seed(0))
    prompts = build_prompts(items, np.array([0]), backbone, LENGTH)
    base = backbone(prompts, queries)
    first_word = int(prompts.picture.nonzero()[-1, 1]) + 2
    tokens = prompts.tokens.clone()
    tokens[0, first_word] += 1
    for other in (
        prompts._replace(tokens=tokens),
        prompts._replace(features=prompts.features.roll(1, dims=0)),
        prompts._replace(features=prompts.features + 1),
    ):
        assert (backbone(other, queries) - base).abs().amax() > 1e-4
    later = queries.clone()
    later[2] += 1
    moved = (backbone(prompts, later) - base).abs().amax(dim=(0, 2))
    assert moved[:2].max() == 0  # a query does not see those after it
    assert moved[2] > 1e-3


def test_the_prompt_by_hand(backbone, items):
    (start,), picture, (end,) = backbone.family.picture_marks()
    prompts = build_prompts(items, np.array([0, 5]), backbone, LENGTH)
    words = [items.words[row].tolist() for row in (0, 5)]
    ask = [
        backbone.text_tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (WITH_IMAGE, WITHOUT_IMAGE)
    ]
    assert ask[0] != ask[1]
    count = int(items.grids[0].prod())
    assert count > 1
    expected = [start, *[picture] * count, end, *words[0], *ask[0]]
    assert prompts.tokens[0, : len(expected)].tolist() == expected
    assert prompts.lengths.tolist() == [
        len(expected) + LENGTH,
        len(words[1]) + len(ask[1]) + LENGTH,
    ]
    assert prompts.picture.sum() == count
    assert not prompts.picture[1].any()


class TestWords:
    def test_special_tokens_in_a_text_are_plain_text(self, backbone):
        tokenizer = backbone.text_tokenizer
        special = set(tokenizer.all_special_ids) | {
            tokenizer.convert_tokens_to_ids(name)
            for name in ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|endoftext|>")
        }
        texts = [TEXTS[4], "<|image_pad|>", f"say {WITH_IMAGE} or {WITHOUT_IMAGE}"]
        for text, ids in zip(texts, backbone.token_ids(texts), strict=True):
            assert not special & set(ids)
            assert tokenizer.decode(ids) == text
            # What the instruction looks like is one token in the prompt, but not in a text.
            assert not set(ids) & set(backbone.frame(picture=True)[1])

    def test_reading_texts_does_not_change_how_the_instruction_is_read(self, backbone):
        before = backbone.frame(picture=True), backbone.frame(picture=False)
        backbone.token_ids(TEXTS)
        assert (backbone.frame(picture=True), backbone.frame(picture=False)) == before
        assert len(before[0][1]) == len(before[1][1]) == 1

    def test_any_text_comes_back(self, backbone):
        for text, ids in zip(TEXTS, backbone.token_ids(TEXTS), strict=True):
            assert backbone.text_tokenizer.decode(ids) == text

    def test_a_text_does_not_depend_on_the_others(self, backbone):
        together = backbone.token_ids(TEXTS)
        assert [backbone.token_ids([text])[0] for text in TEXTS] == together


class TestPictures:
    def test_features_do_not_depend_on_the_others(self, backbone):
        shown = [draw_picture(*shape, seed=0) for shape in SHAPES if shape is not None]
        together = backbone.picture_features(shown)
        assert together.features.shape == (together.grids.prod(axis=1).sum(), 32)
        start = 0
        for picture, grid in zip(shown, together.grids, strict=True):
            alone = backbone.picture_features([picture])
            assert np.array_equal(alone.grids, [grid])
            end = start + int(grid.prod())
            torch.testing.assert_close(
                together.features[start:end], alone.features, atol=1e-4, rtol=1e-4
            )
            start = end

    def test_the_number_of_tokens_is_bounded_and_shapes_are_kept(self, backbone):
        shown = [draw_picture(*shape, seed=0) for shape in SHAPES if shape is not None]
        grids = backbone.picture_features(shown).grids  # height, width
        assert (grids.prod(axis=1) <= BACKBONE.picture_tokens).all()
        assert grids[0, 1] > grids[0, 0]  # 112 × 56 is wide
        assert grids[1, 0] > grids[1, 1]  # 56 × 84 is high

    def test_pictures_open_as_rgb_and_upright(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by a quarter
        Image.new("RGB", (20, 10), "red").save(tmp_path / "turned.jpg", exif=exif)
        assert open_picture(tmp_path / "turned.jpg").size == (10, 20)
        for mode in ("L", "RGBA", "P", "CMYK", "1", "I;16"):
            kind = "tiff" if mode in ("CMYK", "I;16") else "png"
            Image.new(mode, (4, 5)).save(tmp_path / f"x.{kind}")
            opened = open_picture(tmp_path / f"x.{kind}")
            assert (opened.mode, opened.size) == ("RGB", (4, 5))

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
    def test_what_is_no_picture_is_refused(self, tmp_path, content):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(BadImage, match=r"x\.png cannot be read as a picture"):
            open_picture(tmp_path / "x.png")

    def test_a_picture_cut_short_is_refused(self, tmp_path):
        draw_picture(90, 90, seed=0).save(tmp_path / "x.png")
        whole = (tmp_path / "x.png").read_bytes()
        (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadImage):
            open_picture(tmp_path / "x.png")

    def test_too_many_pixels_are_refused_before_they_are_read(self, tmp_path):
        draw_picture(30, 30, seed=0).save(tmp_path / "x.png")
        with pytest.raises(BadImage, match="30×30 pixels; at most 899 are read"):
            open_picture(tmp_path / "x.png", max_pixels=899)
        assert open_picture(tmp_path / "x.png", max_pixels=900).size == (30, 30)


class TestTiny:
    def test_it_is_the_same_every_time(self, tmp_path):
        shown = [draw_picture(60, 60, seed=seed) for seed in range(3)]
        for name in "ab":
            torch.manual_seed(ord(name))  # the caller's random numbers do not matter
            (tmp_path / name).mkdir()
            create_tiny_backbone(tmp_path / name, TEXTS, shown, BACKBONE)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name

    def test_repeated_texts_are_the_same_every_time_too(self, tmp_path):
        """Fewer topics than asked for: what fills them up must not be drawn anew each time."""
        for name in "ab":
            (tmp_path / name).mkdir()
            create_tiny_backbone(tmp_path / name, [*TEXTS, *TEXTS, "", ""], [], BACKBONE)
        first, second = (tmp_path / name / "model.safetensors" for name in "ab")
        assert first.read_bytes() == second.read_bytes()

    def test_words_of_the_same_items_start_alike(self, tmp_path):
        texts = ["red cup", "red mug", "green tea", "green mint"] * 10
        create_tiny_backbone(tmp_path, texts, [], BACKBONE)
        backbone = Backbone(tmp_path)
        (red, cup), (green, tea) = backbone.token_ids(["red cup", "green tea"])

        def likeness(first: int, second: int) -> float:
            vectors = backbone.embeddings.detach()[[first, second]]
            return float(torch.cosine_similarity(vectors[0], vectors[1], dim=0))

        together = [likeness(red, cup), likeness(green, tea)]
        apart = [likeness(red, tea), likeness(green, cup), likeness(cup, tea)]
        assert min(together) > max(apart) + 0.2

    def test_the_callers_random_numbers_are_left_alone(self, tmp_path):
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        create_tiny_backbone(tmp_path, TEXTS, [], BACKBONE)
        assert torch.equal(torch.rand(1), expected)

    def test_the_vision_tower_is_frozen_and_the_rest_is_not(self, backbone):
        names = {name for name, p in backbone.named_parameters() if not p.requires_grad}
        assert names
        assert all(".visual." in name for name in names)
        assert not any(p.requires_grad for p in backbone.model.visual.parameters())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"vocabulary": 299}, "vocabulary must be at least 300, got 299"),
            ({"hidden_size": 40}, "multiple of 8 × heads"),
            ({"heads": 3, "hidden_size": 48}, "heads even"),
            ({"picture_tokens": 3}, "picture_tokens is at least 4"),
        ],
    )
    def test_sizes_that_cannot_work_are_refused(self, settings, message):
        with pytest.raises(BadConfig, match=message):
            TinyBackboneConfig(**settings)

    def test_an_empty_folder_is_no_backbone(self, tmp_path):
        with pytest.raises(MissingStage, match="holds no model"):
            Backbone(tmp_path)
