"""The training loop by hand: rates, decay, clipping, means, and losses that are not finite."""

import json
import math
import os
import signal

import pytest
import torch
import typer
from small_training import Regression, assert_same, batch_of, run
from torch import nn

from utgrec.commands.frame import Flags, execute
from utgrec.errors import Stopped, TrainingError
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


class TestStopping:
    """A signal ends training after its step, with a checkpoint; the run then goes on."""

    @pytest.fixture(autouse=True)
    def _ctrl_c_is_heard(self):
        """Shells start what runs in the background with SIGINT ignored, and it would stay so."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_after_the_step_and_the_run_goes_on(self, tmp_path, number):
        def batch(step):
            if step == 4 and not sent:
                sent.append(1)
                os.kill(os.getpid(), number)
            return batch_of(step)

        sent = []
        before = signal.getsignal(number)
        with pytest.raises(Stopped, match="after step 5 of 12") as stopped:
            run(tmp_path / "stopped", batch=batch, checkpoint_every_s=1e9)
        assert stopped.value.signal == number
        assert signal.getsignal(number) is before
        again = run(tmp_path / "stopped", batch=batch, checkpoint_every_s=1e9)
        assert_same(again, run(tmp_path / "whole", checkpoint_every_s=1e9))

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path):
        def batch(step):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, batch=batch)

    def test_the_command_line_tells_the_signal_by_its_exit_code(self, capsys):
        def command(terminal):
            raise Stopped("stopped by signal 15", 15)

        with pytest.raises(typer.Exit) as left:
            execute(command, Flags(), uses_models=False)
        assert left.value.exit_code == 143


def test_a_run_out_of_patience_writes_its_last_row(tmp_path):
    """Eight steps with a row every five: the last three must not be lost."""
    trained = run(
        tmp_path, validate=lambda: {"quality": 0.0}, validate_every=2, patience=3, log_every=5
    ).trained
    assert trained.steps_done == 8
    assert [row["step"] for row in trained.rows] == [5, 8]


class TestParts:
    """A batch worked through in parts, or by several processes, is the batch as one."""

    @staticmethod
    def shared(whole=False):
        def share(batch, number, count):
            part = batch[number::count]
            return Share(part, count * len(part) / len(batch))

        return SharedBatches(draw=batch_of, share=share, rows=len, whole=whole)

    @pytest.mark.parametrize("at_once", [1, 2, 4, 5])
    def test_parts_are_the_whole(self, tmp_path, at_once):
        class Plain(Regression):
            """Nothing in it counts its calls or draws anything."""

            def forward(self, batch):
                out = self.leave(torch.tanh(self.enter(batch))).squeeze(1)
                return {"loss": (out - batch.sum(dim=1)).square().mean()}

        settings = {"measure": False, "checkpoint_every_s": 1e9, "steps": 4}
        one = run(tmp_path / "one", module=Plain(), batch=self.shared(), **settings)
        many = run(
            tmp_path / "many", module=Plain(), batch=self.shared(), at_once=at_once, **settings
        )
        for name in ("enter.weight", "leave.weight", "enter.bias"):
            torch.testing.assert_close(one.weights[name], many.weights[name], atol=1e-5, rtol=1e-4)
        for first, second in zip(one.trained.rows, many.trained.rows, strict=True):
            assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)


def test_batches_laid_out_ahead_are_the_same(tmp_path):
    from types import SimpleNamespace

    from utgrec.training.trainer import _alone, _fetching

    config = TrainerConfig(steps=5, learning_rate=0.1)
    for ahead in (False, True):
        launch = SimpleNamespace(number=0, count=1)
        with _fetching(_alone(batch_of), launch, config, ahead) as fetch:
            for step in (2, 3, 4):
                drawn, shares = fetch(step)
                assert torch.equal(drawn, batch_of(step)) and torch.equal(shares[0].batch, drawn)
