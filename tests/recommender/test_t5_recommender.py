"""The recommender is transformers' T5: same logits, a folder that any tool opens, a plain loss."""

import itertools

import pytest
import torch

from utgrec.errors import BadConfig
from utgrec.recommender.prefixes import PrefixBatch
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

VOCABULARY = Vocabulary(root_size=4, leaf_size=5, code_length=3, domains=("a",), domain_slots=3)
SIZES = T5Sizes(
    width=16, feed_forward=24, heads=2, head_width=8, encoder_layers=2, decoder_layers=1
)


def make(**changes) -> T5Recommender:
    """A small recommender in which no weight has a special value."""
    torch.manual_seed(0)
    model = T5Recommender.create(SIZES, VOCABULARY, **changes)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def draw_batch(lengths=(3, 1, 4), width=None) -> PrefixBatch:
    """Histories of some items each, padded on the right."""
    torch.manual_seed(3)
    width = width or 2 + 3 * max(lengths)
    tokens = torch.full((len(lengths), width), PAD)
    name = VOCABULARY.domain_token("a")
    for row, length in enumerate(lengths):
        codes = torch.stack([torch.randint(size, (length,)) for size in (4, 5, 5)], dim=1)
        flat = VOCABULARY.to_tokens(codes).flatten()
        tokens[row, : 2 + 3 * length] = torch.cat([torch.tensor([name]), flat, torch.tensor([END])])
    targets = torch.stack([torch.randint(size, (len(lengths),)) for size in (4, 5, 5)], dim=1)
    return PrefixBatch(tokens, (tokens != PAD).long(), VOCABULARY.to_tokens(targets))


def newest_of(batch: PrefixBatch, row: int) -> list[int]:
    """The codes of the newest item of a history: those before the end token."""
    used = int(batch.mask[row].sum())
    return batch.tokens[row, used - 4 : used - 1].tolist()


def written_of(batch: PrefixBatch) -> torch.Tensor:
    """What the decoder reads: start, the newest item's codes, the targets but the last. (B, 2L)"""
    rows = range(len(batch.tokens))
    lead = torch.tensor([[PAD, *newest_of(batch, row)] for row in rows])
    return torch.cat([lead, batch.targets[:, :-1]], dim=1)


@torch.no_grad()
def test_the_loss_by_hand():
    """Minus the log-probability of each code given those before it, by transformers."""
    model, batch = make(), draw_batch()
    losses = model(batch)
    expected = torch.zeros(3, 3)
    for row, place in itertools.product(range(3), range(3)):
        used = int(batch.mask[row].sum())
        before = [PAD, *newest_of(batch, row), *batch.targets[row, :place].tolist()]
        logits = model.t5(
            input_ids=batch.tokens[row : row + 1, :used],  # no padding, no mask
            decoder_input_ids=torch.tensor([before]),
        ).logits[0, -1]
        expected[row, place] = -logits.log_softmax(-1)[batch.targets[row, place]]
    assert losses["loss"].item() == pytest.approx(expected.mean().item(), rel=1e-4)
    for place in range(3):
        by_position = expected[:, place].mean().item()
        assert losses[f"code_{place + 1}"].item() == pytest.approx(by_position, rel=1e-4)
    assert list(losses) == ["loss", "code_1", "code_2", "code_3"]


@torch.no_grad()
def test_padding_and_company_change_nothing():
    model = make()
    narrow, wide = draw_batch(), draw_batch(width=30)
    assert wide.tokens.shape[1] > narrow.tokens.shape[1]
    for name, value in model(narrow).items():
        torch.testing.assert_close(model(wide)[name], value)
    each = [
        model(PrefixBatch(*(part[row : row + 1] for part in narrow)))["loss"] for row in range(3)
    ]
    torch.testing.assert_close(torch.stack(each).mean(), model(narrow)["loss"])


@torch.no_grad()
def test_every_token_of_the_history_matters_and_later_codes_do_not_leak():
    model, batch = make(), draw_batch((3,))
    base = model(batch)
    for place in range(batch.tokens.shape[1]):
        tokens = batch.tokens.clone()
        tokens[0, place] = (tokens[0, place] + 1) % VOCABULARY.size
        moved = model(batch._replace(tokens=tokens))
        assert abs(moved["code_1"].item() - base["code_1"].item()) > 1e-5
    codes = VOCABULARY.to_codes(batch.targets)
    codes[0, 2] = (codes[0, 2] + 1) % 5
    targets = VOCABULARY.to_tokens(codes)
    moved = model(batch._replace(targets=targets))
    assert moved["code_1"].item() == base["code_1"].item()
    assert moved["code_2"].item() == base["code_2"].item()
    assert moved["code_3"].item() != base["code_3"].item()


class TestFolder:
    @torch.no_grad()
    def test_plain_transformers_opens_it(self, tmp_path):
        from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

        model, batch = make(), draw_batch()
        model.save(tmp_path)
        inputs = {
            "input_ids": batch.tokens,
            "attention_mask": batch.mask,
            "decoder_input_ids": written_of(batch),
        }
        expected = model.t5(**inputs).logits
        # Transformers leaves out of its loss what is labelled -100.
        ignored = torch.full_like(batch.targets, -100)
        labels = torch.cat([ignored, batch.targets], dim=1)
        for opened in (
            T5ForConditionalGeneration.from_pretrained(tmp_path),
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path),
            T5Recommender.load(tmp_path).t5,
        ):
            found = opened.eval()(**inputs, labels=labels)
            assert torch.equal(found.logits, expected)
            torch.testing.assert_close(found.loss, model(batch)["loss"])

    def test_it_says_what_it_is(self, tmp_path):
        from transformers import AutoConfig

        make().save(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)
        assert config.model_type == "t5"
        assert (config.d_model, config.d_ff, config.num_heads, config.d_kv) == (16, 24, 2, 8)
        assert (config.num_layers, config.num_decoder_layers) == (2, 1)
        assert config.vocab_size == VOCABULARY.size
        assert (config.pad_token_id, config.eos_token_id) == (PAD, END)
        assert config.decoder_start_token_id == PAD
        assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}

    def test_a_loaded_one_does_not_drop_anything_out(self, tmp_path):
        make().save(tmp_path)
        assert not T5Recommender.load(tmp_path).training


class TestTraining:
    def test_label_smoothing_counts_in_training_only(self):
        model, batch = make(label_smoothing=0.3), draw_batch()
        plain = make()(batch)
        torch.testing.assert_close(model(batch)["loss"], plain["loss"])
        model.train()
        model.t5.config.dropout_rate = 0.0
        with torch.no_grad():
            logits = (
                make()
                .t5(
                    input_ids=batch.tokens,
                    attention_mask=batch.mask,
                    decoder_input_ids=written_of(batch),
                )
                .logits[:, 3:]
            )
        chances = logits.log_softmax(-1)
        right = chances.gather(2, batch.targets[:, :, None]).squeeze(2)
        expected = -(0.7 * right + 0.3 * chances.mean(dim=-1)).mean()
        torch.testing.assert_close(model(batch)["loss"], expected)

    def test_gradients_reach_every_weight(self):
        model = make().train()
        model(draw_batch())["loss"].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().sum() > 0, name

    def test_it_learns_a_batch_by_heart(self):
        model, batch = make().train(), draw_batch((3, 1, 4, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        losses = []
        for _ in range(120):
            optimizer.zero_grad()
            loss = model(batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.3 * losses[0]

    def test_the_seed_makes_the_weights(self):
        assert torch.equal(make().t5.shared.weight, make().t5.shared.weight)


@pytest.mark.parametrize(
    "settings", [{"width": 0}, {"heads": 0}, {"encoder_layers": 0}, {"dropout": 1.0}]
)
def test_sizes_that_cannot_work_are_refused(settings):
    with pytest.raises(BadConfig):
        T5Sizes(**settings)
