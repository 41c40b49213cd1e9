"""The whole network: its losses, who learns from them, and what stays as it is."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small_items import TEXTS, small_config

from utgrec.data.neighbours import find_neighbours
from utgrec.data.split import Split
from utgrec.tokenizer.batches import PairBatches
from utgrec.tokenizer.items import build_prompts, read_items
from utgrec.tokenizer.model import LossWeights, Standardize, TokenizerModel
from utgrec.tokenizer.pretrained import create_model

NAMES = ["loss", "text", "image", "code", "alignment", "partner_text", "partner_image"]


def make_batches(items, backbone, histories=((0, 1, 3, 4), (6, 7, 5, 2))):
    """Batches over the odd items."""
    split = Split(
        offsets=np.cumsum([0, *map(len, histories)]),
        train=np.array([item for history in histories for item in history], np.int32),
        valid=np.full(len(histories), -1, np.int32),
        test=np.full(len(histories), -1, np.int32),
    )
    return PairBatches(
        items,
        find_neighbours(split, len(TEXTS)),
        np.unique(split.train).astype(np.int64),
        backbone,
        code_length=3,
        batch_size=8,
        seed=0,
    )


def make_model(backbone_folder, *, warm: bool = True, **quantizer) -> TokenizerModel:
    """A model in which no weight has a special value, past its warm-up."""
    config = small_config()
    config = dataclasses.replace(
        config, quantizer=dataclasses.replace(config.quantizer, **quantizer)
    )
    torch.manual_seed(0)
    model = create_model(backbone_folder, config).train()
    if warm:
        model.quantizer.step.fill_(config.quantizer.warmup_steps + 1)
    return model


def shake(model: TokenizerModel) -> TokenizerModel:
    """Move every trainable weight a little: layers that start at zero let no gradient through."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def batch(items, backbone):
    """Items with and without picture and words, all with partners."""
    return make_batches(items, backbone).collate(np.array([0, 2, 4, 6]), np.array([1, 5, 3, 7]))


class TestLosses:
    def test_every_term_has_its_name_and_the_sum_is_theirs(self, backbone_folder, batch):
        model = shake(make_model(backbone_folder))
        losses = model(batch)
        assert list(losses) == NAMES
        assert all(value.ndim == 0 and value.item() > 0 for value in losses.values())
        value = {name: loss.item() for name, loss in losses.items()}
        expected = (
            value["text"]
            + 5 * value["image"]
            + 200 * value["code"]
            + 0.01 * value["alignment"]
            + 0.03 * (value["partner_text"] + 5 * value["partner_image"])
        )
        assert value["loss"] == pytest.approx(expected, rel=1e-5)

    def test_the_weights_are_those_of_the_configuration(self, backbone_folder, batch):
        model = shake(make_model(backbone_folder))
        model.weights = LossWeights(image=2.0, code=3.0, alignment=5.0, partner=7.0)
        value = {name: loss.item() for name, loss in model(batch).items()}
        expected = value["text"] + 2 * value["image"] + 3 * value["code"]
        expected += 5 * value["alignment"]
        expected += 7 * (value["partner_text"] + 2 * value["partner_image"])
        assert value["loss"] == pytest.approx(expected, rel=1e-5)

    def test_in_the_warm_up_nothing_is_quantised(self, backbone_folder, batch):
        model = make_model(backbone_folder, warm=False)
        assert model(batch)["code"].item() == 0
        assert model(batch)["code"].item() == 0
        assert model(batch)["code"].item() > 0
        assert int(model.quantizer.step) == 3

    def test_after_the_warm_up_code_vectors_lie_on_the_states(self, backbone_folder, batch):
        losses = {}
        for start in (True, False):
            model = make_model(backbone_folder, warm=False, start_from_states=start, revive_every=0)
            losses[start] = [model(batch)["code"].item() for _ in range(3)]
        assert losses[True][2] < 0.7 * losses[False][2]

    def test_codes_that_nothing_chose_are_revived(self, backbone_folder, batch):
        used = {}
        settings = {"start_from_states": False, "root_size": 40, "leaf_size": 50}
        for every in (0, 3):
            model = make_model(backbone_folder, warm=False, revive_every=every, **settings)
            before = model.quantizer.root.vectors.detach().clone()
            changed = []
            for _ in range(7):
                model(batch)
                changed.append(not torch.equal(before, model.quantizer.root.vectors))
            used[every] = changed
        assert used[0] == [False] * 7
        assert used[3] == [False] * 5 + [True] * 2  # two steps of warm-up and three more

    def test_only_training_steps_are_counted(self, backbone_folder, batch):
        model = make_model(backbone_folder, warm=False).eval()
        model(batch)
        assert int(model.quantizer.step) == 0
        assert int(model.quantizer.seen_count) == 0

    def test_alignment_knows_the_neighbours(self, backbone_folder, batch):
        model = shake(make_model(backbone_folder)).eval()
        everything = torch.zeros_like(batch.false_negatives)
        free = model(batch._replace(false_negatives=everything))["alignment"].item()
        masked = model(batch)["alignment"].item()
        assert masked < free

    def test_without_pictures_the_image_losses_are_exactly_zero(
        self, backbone, backbone_folder, codec
    ):
        words = read_items(TEXTS, [None] * 8, backbone, codec, 24)
        batch = make_batches(words, backbone)(0)
        model = shake(make_model(backbone_folder))
        losses = model(batch)
        assert losses["image"].item() == losses["partner_image"].item() == 0
        losses["loss"].backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), name

    @pytest.mark.parametrize("at_once", [1, 2, 3])
    def test_a_batch_worked_through_in_parts_is_the_batch_as_one(
        self, backbone_folder, items, backbone, at_once, monkeypatch
    ):
        """States of parts are kept and computed again: all losses and gradients are the same."""
        read, project = [], TokenizerModel._project

        def counted(self, prompts):
            read.append(len(prompts.tokens))
            return project(self, prompts)

        monkeypatch.setattr(TokenizerModel, "_project", counted)
        found = []
        for most in (0, at_once):
            model = shake(make_model(backbone_folder))
            model.features.config = dataclasses.replace(model.features.config, dropout=0.0)
            batches = make_batches(items, backbone)
            batches.at_once = most
            batch = batches(0)
            read.clear()
            losses = model(batch)
            losses["loss"].backward()
            assert batch.recompute == bool(most)
            assert sum(read) == len(batch.rows) * (2 if most else 1)
            assert not most or max(read) <= most
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.append((losses, gradients))
        (losses, gradients), (again, others) = found
        for name in NAMES:
            torch.testing.assert_close(again[name], losses[name])
        assert others.keys() == gradients.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=1e-4, msg=name)

    def test_parts_draw_the_same_noise_when_they_are_computed_again(
        self, backbone_folder, items, backbone
    ):
        """With dropout on, gradients of the second pass are those of the first one's losses."""
        batches = make_batches(items, backbone)
        batches.at_once = 2
        batch = batches(0)
        gradients = []
        for again in (True, False):
            model = shake(make_model(backbone_folder))
            model.features.config = dataclasses.replace(model.features.config, dropout=0.5)
            torch.manual_seed(3)
            model(batch._replace(recompute=again))["loss"].backward()
            gradients.append(model.queries.grad)
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)

    def test_a_lone_item_without_words_picture_and_partner(self, items, backbone, backbone_folder):
        """Nothing to learn from is a loss of nothing but codes, not NaN."""
        batches = make_batches(items, backbone)
        batch = batches.collate(np.array([1]), np.array([1]))
        batch = batch._replace(has_image=torch.tensor([False]))
        model = shake(make_model(backbone_folder))
        losses = model(batch)
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(losses[name].item() == 0 for name in NAMES if name not in ("loss", "code"))
        losses["loss"].backward()
        assert all(
            parameter.grad is None or torch.isfinite(parameter.grad).all()
            for parameter in model.parameters()
        )


class TestFeatures:
    def test_states_begin_as_the_components_of_features(self, backbone_folder, items, backbone):
        model = make_model(backbone_folder).eval()
        model.features.fit_states(items.summary)
        prompts = build_prompts(items, np.arange(len(items)), backbone, 3)
        added = model.features.states(prompts.summary)  # (B, 1, D)
        states = model.states(prompts)
        similar = torch.nn.functional.cosine_similarity(states, added.expand_as(states), dim=-1)
        assert similar.min() > 0.9

    def test_company_reaches_states_through_the_queries_too(self, backbone_folder, items, backbone):
        model = make_model(backbone_folder).eval()  # components are zero: only queries are left
        prompts = build_prompts(items, np.arange(len(items)), backbone, 3)
        other = prompts._replace(summary=prompts.summary.roll(1, dims=0))
        assert (model.states(prompts) - model.states(other)).abs().max() > 1e-4


class TestGradients:
    @pytest.mark.parametrize("kind", ["simvq", "vq", "ema"])
    def test_they_reach_every_trainable_weight(self, backbone_folder, batch, kind):
        model = shake(make_model(backbone_folder, kind=kind))
        model(batch)["loss"].backward()
        for name, parameter in model.named_parameters():
            if ".visual." in name:
                assert parameter.grad is None, name
            else:
                assert parameter.grad.abs().sum() > 0, name

    def test_reconstruction_reaches_the_backbone_through_the_codes(self, backbone_folder, batch):
        for term in ("text", "image", "partner_text", "partner_image"):
            model = shake(make_model(backbone_folder))
            model(batch)[term].backward()
            assert model.queries.grad.abs().sum() > 0, term
            assert model.quantizer.root.basis.grad is None, term

    def test_the_vision_tower_never_moves(self, backbone_folder, items, backbone):
        model = make_model(backbone_folder, warm=False)
        frozen = copy.deepcopy(model.backbone.model.visual.state_dict())
        before = copy.deepcopy(model.state_dict())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.5)
        batches = make_batches(items, backbone)
        for step in range(3):
            optimizer.zero_grad()
            model(batches(step))["loss"].backward()
            optimizer.step()
        for name, value in model.backbone.model.visual.state_dict().items():
            assert torch.equal(value, frozen[name]), name
        moved = [name for name, value in model.state_dict().items()
                 if not torch.equal(value, before[name])]  # fmt: skip
        assert any(name.startswith("backbone.model.language_model.layers.1") for name in moved)
        assert "queries" in moved


class TestStates:
    @pytest.mark.parametrize("shaken", [False, True])
    @torch.no_grad()
    def test_an_item_does_not_depend_on_its_company(self, backbone_folder, items, backbone, shaken):
        model = make_model(backbone_folder)
        model.states(build_prompts(items, np.arange(8), backbone, 3))  # running averages move
        model = (shake(model) if shaken else model).eval()
        together = model.states(build_prompts(items, np.array([6, 0, 3, 7, 1]), backbone, 3))
        for place, row in enumerate([6, 0, 3, 7, 1]):
            alone = model.states(build_prompts(items, np.array([row]), backbone, 3))
            torch.testing.assert_close(alone[0], together[place], atol=1e-4, rtol=1e-4)


class TestStandardize:
    def test_one_mean_for_each_coordinate_and_one_scale_for_each_position(self):
        torch.manual_seed(0)
        states = torch.tensor([1.0, 20.0])[:, None] * torch.randn(50, 2, 4) + 7
        out = Standardize(2, 4).train()(states)
        torch.testing.assert_close(out.mean(dim=0), torch.zeros(2, 4), atol=1e-5, rtol=0)
        torch.testing.assert_close(out.square().mean(dim=(0, 2)), torch.ones(2))
        # Coordinates keep their weight within a position.
        spread = states.std(dim=0)
        torch.testing.assert_close(
            out.std(dim=0) / spread, (out.std(0) / spread)[:, :1].expand(2, 4)
        )

    def test_afterwards_the_running_averages_are_used(self):
        torch.manual_seed(0)
        layer = Standardize(2, 4).train()
        for _ in range(300):
            layer(3 * torch.randn(200, 2, 4) + 7)
        out = layer.eval()(3 * torch.randn(2000, 2, 4) + 7)
        assert out.mean().item() == pytest.approx(0, abs=0.05)
        assert out.std().item() == pytest.approx(1, abs=0.05)
        one = torch.randn(1, 2, 4)
        assert torch.equal(layer(one), layer(torch.cat([one, torch.randn(3, 2, 4)]))[:1])

    def test_the_averages_by_hand(self):
        """The plain mean of the first batches, then a running one."""
        layer = Standardize(1, 2, momentum=0.4).train()
        first = torch.tensor([[[0.0, 2.0]], [[4.0, 2.0]]])  # mean 2, 2; variance 4, 0
        layer(first)
        assert layer.mean.tolist() == [[2.0, 2.0]]
        assert layer.variance.tolist() == [[2.0]]
        layer(torch.zeros(2, 1, 2))
        assert layer.mean.tolist() == [[1.0, 1.0]]
        assert layer.variance.tolist() == [[1.0]]
        layer(torch.zeros(2, 1, 2))
        torch.testing.assert_close(layer.mean, torch.full((1, 2), 0.6))
        torch.testing.assert_close(layer.variance, torch.full((1, 1), 0.6))

    def test_states_from_elsewhere_refit_those_of_a_gpu(self):
        """No GPU here: a device without memory stands for one, and may not meet the CPU either."""
        layer = Standardize(2, 4).to("meta")
        layer.refit(torch.randn(5, 2, 4))
        assert layer.mean.device.type == layer.variance.device.type == "meta"

    def test_equal_states_are_no_division_by_zero(self):
        layer = Standardize(1, 2).train()
        assert torch.equal(layer(torch.ones(3, 1, 2)), torch.zeros(3, 1, 2))

    def test_a_lone_item_is_measured_by_the_running_averages(self):
        torch.manual_seed(0)
        layer = Standardize(1, 2).train()
        layer(3 * torch.randn(50, 1, 2) + 7)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        lone = torch.randn(1, 1, 2)
        out = layer(lone)
        assert torch.equal(out, layer.eval()(lone))
        assert out.abs().max() > 0.1
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
