"""The training loop by hand: rates, decay, clipping, means, and losses that are not finite."""

import json
import math

import pytest
import torch
from small_training import batch_of, run
from torch import nn

from utgrec.errors import TrainingError
from utgrec.training.trainer import (
    Share,
    SharedBatches,
    TrainerConfig,
    schedule,
    train,
    write_losses,
)


class Flat(nn.Module):
    """A matrix and a vector whose gradients are what is asked for."""

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.full((2, 2), 4.0))
        self.vector = nn.Parameter(torch.full((2,), 4.0))
        self.slope = slope

    def forward(self, batch):
        return {"loss": self.slope * (self.matrix.sum() + self.vector.sum())}


def train_flat(tmp_path, module, **settings):
    """Train without validation."""
    values = {"steps": 4, "learning_rate": 0.1, "warmup_share": 0.5, "precision": "fp32"}
    config = TrainerConfig(**{**values, **settings})
    return train(module, batch=lambda step: step, config=config, work=tmp_path, inputs={})


def test_the_schedule_by_hand():
    config = TrainerConfig(steps=12, learning_rate=1.0, warmup_share=1 / 3)
    rates = [schedule(step, config) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    cosine = [0.5 * (1 + math.cos(math.pi * place / 8)) for place in range(8)]
    assert rates[4:] == pytest.approx(cosine)
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert 0 < rates[11] < 0.05


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_schedule_of_a_short_run_stays_within_the_peak(steps):
    config = TrainerConfig(steps=steps, learning_rate=1.0)
    assert all(0 <= schedule(step, config) <= 1 for step in range(steps))
    assert schedule(0, config) > 0


def test_only_matrices_decay(tmp_path):
    module = Flat()
    train_flat(tmp_path, module, weight_decay=0.3)
    expected = 4.0
    for share in (0.5, 1.0, 1.0, 0.5):  # two steps of warm-up, then half a cosine over two
        expected *= 1 - 0.1 * share * 0.3
    torch.testing.assert_close(module.matrix.data, torch.full((2, 2), expected))
    assert torch.equal(module.vector.data, torch.full((2,), 4.0))


def test_adam_moves_by_the_rate(tmp_path):
    """With a constant gradient every step of Adam is the learning rate, whatever the slope."""
    module = Flat(slope=1000.0)
    train_flat(tmp_path, module, weight_decay=0.0)
    moved = 4.0 - 0.1 * (0.5 + 1.0 + 1.0 + 0.5)
    torch.testing.assert_close(module.vector.data, torch.full((2,), moved))


def test_gradients_are_clipped_to_the_norm_and_logged_before(tmp_path):
    seen = []

    class Watched(Flat):
        def forward(self, batch):
            if self.vector.grad is not None:
                seen.append(1)
            return super().forward(batch)

    module = Watched(slope=10.0)
    norms = []
    module.vector.register_post_accumulate_grad_hook(lambda p: norms.append(float(p.grad.norm())))
    trained = train_flat(tmp_path, module, log_every=1, clip_norm=0.5)
    expected = 10.0 * math.sqrt(6)
    assert [row["gradient_norm"] for row in trained.rows] == pytest.approx([expected] * 4)
    assert seen == []  # gradients do not pile up from step to step
    assert norms == pytest.approx([10.0 * math.sqrt(2)] * 4)


def test_clipping_changes_what_a_changing_gradient_does(tmp_path):
    """Adam forgets a constant scale; a spike that is cut down moves the weights less."""

    class Spike(Flat):
        def forward(self, batch):
            slope = 100.0 if batch == 1 else 0.01
            return {"loss": slope * (self.matrix.sum() + self.vector.sum())}

    cut, free = Spike(), Spike()
    train_flat(tmp_path / "cut", cut, clip_norm=0.001, weight_decay=0.0)
    train_flat(tmp_path / "free", free, clip_norm=1e9, weight_decay=0.0)
    # Cut to the same norm, all gradients are alike, and Adam's steps are the rates: 0.3 in all.
    torch.testing.assert_close(cut.vector.data, torch.full((2,), 3.7))
    assert abs(float(free.vector.data[0]) - 3.7) > 0.02


def test_rows_are_means_over_the_steps_since_the_last_row(tmp_path):
    every = run(tmp_path / "every", log_every=1).trained.rows
    some = run(tmp_path / "some", log_every=5).trained.rows
    assert [row["step"] for row in every] == list(range(1, 13))
    assert [row["step"] for row in some] == [5, 10, 12]
    for row, (first, last) in zip(some, [(0, 5), (5, 10), (10, 12)], strict=True):
        for name in ("loss", "fit", "extra", "gradient_norm"):
            values = [each[name] for each in every[first:last]]
            assert row[name] == pytest.approx(sum(values) / len(values))


def test_the_loss_goes_down(tmp_path):
    rows = run(tmp_path, steps=60, log_every=20, measure=False, checkpoint_every_s=1e9).trained.rows
    assert rows[-1]["fit"] < 0.5 * rows[0]["fit"]


def test_without_validation_the_last_weights_stay(tmp_path):
    outcome = run(tmp_path, measure=False)
    assert outcome.trained.best_step == outcome.trained.steps_done == 12
    assert outcome.trained.validations == []
    assert int(outcome.weights["passes"]) == 12


def test_validations_come_when_due_and_at_the_end(tmp_path):
    outcome = run(tmp_path, steps=11, validate_every=4)
    assert [row["step"] for row in outcome.trained.validations] == [4, 8, 11]


def test_no_step_at_all(tmp_path):
    outcome = run(tmp_path, steps=0)
    assert outcome.trained.steps_done == 0
    assert outcome.trained.rows == []


def test_bf16_leaves_the_weights_in_float32(tmp_path):
    outcome = run(tmp_path / "bf16", precision="bf16")
    exact = run(tmp_path / "fp32")
    assert outcome.weights["enter.weight"].dtype == torch.float32
    assert not torch.equal(outcome.weights["enter.weight"], exact.weights["enter.weight"])
    torch.testing.assert_close(
        outcome.weights["enter.weight"], exact.weights["enter.weight"], atol=0.1, rtol=0.1
    )


def test_what_is_frozen_does_not_move(tmp_path):
    assert torch.equal(run(tmp_path).weights["frozen"], torch.ones(2, 2))


def test_the_module_is_left_ready_to_use(tmp_path):
    module = Flat()
    train_flat(tmp_path, module)
    assert not module.training


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_items(tmp_path, wrong):
    class Broken(Flat):
        def forward(self, batch):
            losses = super().forward(batch)
            return {**losses, "image": losses["loss"].detach() + (wrong if batch == 2 else 0)}

    module = Broken(slope=1.0)
    config = TrainerConfig(steps=4, learning_rate=0.1, precision="fp32")
    said = r"step 2: .*'image': (nan|inf).*holds 'B7', 'B8'.* and 12 more"
    with pytest.raises(TrainingError, match=said):
        train(
            module,
            batch=SharedBatches(
                draw=lambda step: step,
                share=lambda batch, number, count: Share(batch, 1.0),
                rows=lambda batch: 1,
                names=lambda batch: [f"B{batch + 5 + place}" for place in range(20)],
            ),
            config=config,
            work=tmp_path,
            inputs={},
        )
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    saved = json.loads((tmp_path / "not_finite.json").read_text())
    assert saved["rows"] == [f"B{place}" for place in range(7, 27)]
    assert (saved["step"], saved["losses"]["image"]) == (2, repr(wrong))


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path):
    class Cliff(Flat):
        def forward(self, batch):
            far = self.vector.sum() - self.vector.sum().detach()  # 0, where sqrt has no slope
            return {"loss": super().forward(batch)["loss"] + (far.sqrt() if batch == 2 else 0.0)}

    module = Cliff(slope=1.0)
    with pytest.raises(TrainingError, match=r"step 2: .*'gradient_norm': (nan|inf)"):
        train_flat(tmp_path, module)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_progress_is_told_of_every_step(tmp_path):
    told = []
    config = TrainerConfig(steps=3, learning_rate=0.1, precision="fp32")
    train(
        Flat(),
        batch=batch_of,
        config=config,
        work=tmp_path,
        inputs={},
        progress=lambda work, done, total, note="": told.append((work, done, total)),
        title="Learning",
    )
    assert told == [("Learning", 1, 3), ("Learning", 2, 3), ("Learning", 3, 3)]


def test_losses_are_json_lines(tmp_path):
    trained = run(tmp_path / "work").trained
    write_losses(tmp_path / "losses.jsonl", trained)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line for line in lines if line.pop("kind") == "loss"] == trained.rows
    assert len(lines) == len(trained.rows) + len(trained.validations)
