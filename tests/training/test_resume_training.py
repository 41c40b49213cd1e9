"""A run that was stopped and started again is the run that was not."""

from pathlib import Path

import pytest
import torch
from small_training import Interrupted, Outcome, Regression, assert_same, batch_of, run

from utgrec.errors import SettingsMismatch
from utgrec.training import checkpoints, standing
from utgrec.training.launch import flatten_moments, restore_moments


def stop_in_batch(at: int):
    """A source of batches that stops the run when it comes to a step."""

    def batch(step: int) -> torch.Tensor:
        if step == at:
            raise Interrupted
        return batch_of(step)

    return batch


def interrupted(work: Path, **settings) -> None:
    """A run that is stopped."""
    with pytest.raises(Interrupted):
        run(work, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Outcome:
    """The run that nobody stops."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("at", [0, 1, 2, 3, 7, 11])
def test_a_stop_before_any_step(whole, tmp_path, at):
    interrupted(tmp_path, batch=stop_in_batch(at))
    assert_same(run(tmp_path), whole)


def test_a_stop_before_every_step(whole, tmp_path):
    for at in range(12):
        interrupted(tmp_path, batch=stop_in_batch(at))
    assert_same(run(tmp_path), whole)


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_stop_in_a_validation(whole, tmp_path, call):
    module, calls = Regression(), []

    def validate():
        calls.append(1)
        if len(calls) == call:
            raise Interrupted
        with torch.no_grad():
            return {"quality": -float(module(batch_of(1000))["fit"])}

    interrupted(tmp_path, module=module, validate=validate)
    assert_same(run(tmp_path), whole)


def test_a_run_whose_end_was_not_seen_gives_it_again_without_a_step(whole, tmp_path):
    run(tmp_path)
    assert_same(run(tmp_path, batch=stop_in_batch(0), validate=lambda: 1 / 0), whole)


def test_checkpoints_now_and_then_are_enough(whole, tmp_path, monkeypatch):
    """With a checkpoint every few steps, the steps since the last one are done again."""

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 1.0
            return cls.now

    monkeypatch.setattr(standing, "time", Clock)
    monkeypatch.setattr(Clock, "now", 0.0)
    done = []

    def batch(step: int) -> torch.Tensor:
        done.append(step)
        if len(done) in (5, 9, 14):
            raise Interrupted
        return batch_of(step)

    # Only seconds between checkpoints may differ between runs that are to be one run.
    uninterrupted = run(tmp_path / "whole", checkpoint_every_s=4.0)
    for _ in range(3):
        interrupted(tmp_path / "work", batch=batch, checkpoint_every_s=4.0)
    outcome = run(tmp_path / "work", batch=batch, checkpoint_every_s=4.0)
    assert_same(outcome, uninterrupted)
    assert_same(outcome, whole)
    assert len(done) > 12 + 3  # some steps were indeed done twice


class TestPatience:
    """Weights get worse on purpose: the second of four validations is the best."""

    QUALITY = (0.5, 0.9, 0.7, 0.9, 0.9, 0.2)

    def outcome(self, work: Path, stops: tuple[int, ...] = (), **settings) -> Outcome:
        """The run, stopped in the validations of these numbers at the first try."""
        stops_left = set(stops)
        while True:
            module = Regression()

            def validate(module=module):
                number = (int(module.passes) - 1) // 2
                if number in stops_left:
                    stops_left.remove(number)
                    raise Interrupted
                return {"quality": self.QUALITY[number]}

            values = {"validate_every": 2, "patience": 2, "checkpoint_every_s": 0.0, **settings}
            try:
                return run(work, module=module, validate=validate, **values)
            except Interrupted:
                continue

    def test_the_best_weights_are_kept(self, tmp_path):
        outcome = self.outcome(tmp_path)
        assert outcome.trained.best_step == 4
        assert outcome.trained.steps_done == 8
        assert [row["step"] for row in outcome.trained.validations] == [2, 4, 6, 8]
        assert int(outcome.weights["passes"]) == 4

    def test_without_patience_all_steps_are_done(self, tmp_path):
        outcome = self.outcome(tmp_path, patience=0)
        assert (outcome.trained.best_step, outcome.trained.steps_done) == (4, 12)
        assert int(outcome.weights["passes"]) == 4

    @pytest.mark.parametrize("stops", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
    def test_stops_change_nothing(self, tmp_path, stops):
        outcome = self.outcome(tmp_path / "stopped", stops)
        assert_same(outcome, self.outcome(tmp_path / "whole"))

    def test_a_finished_run_gives_its_best_weights_again(self, tmp_path):
        first = self.outcome(tmp_path)
        assert_same(self.outcome(tmp_path), first)


class TestSettings:
    def test_a_checkpoint_of_other_settings_is_refused(self, tmp_path):
        interrupted(tmp_path, batch=stop_in_batch(4))
        with pytest.raises(SettingsMismatch, match="other settings or other input"):
            run(tmp_path, learning_rate=0.01)
        with pytest.raises(SettingsMismatch, match=r"remove .* to start anew"):
            run(tmp_path, inputs={"domain": "2"})

    def test_the_seed_matters(self, whole, tmp_path):
        other = run(tmp_path, seed=1)
        assert not torch.equal(other.weights["enter.weight"], whole.weights["enter.weight"])


class TestCheckpoints:
    def state(self, step: int, **changes) -> checkpoints.TrainingState:
        """A little state."""
        values = {
            "weights": {"w": torch.full((2,), float(step))},
            "moments": {"0.exp_avg": torch.ones(2), "0.step": torch.tensor(float(step))},
            "best": {},
            "average": {},
            "record": {"rows": [{"loss": 0.1 + step}], "finished": False},
            **changes,
        }
        return checkpoints.TrainingState(step=step, **values)

    def test_it_comes_back(self, tmp_path):
        tied = torch.randn(3, 2).T  # not contiguous, and used twice
        state = self.state(
            3, weights={"a": tied, "b": tied}, best={"a": torch.ones(())}, average={"a": tied}
        )
        checkpoints.save(tmp_path, state, "s")
        found = checkpoints.load_latest(tmp_path, "s")
        assert found is not None
        assert (found.step, found.record) == (3, state.record)
        for part in ("weights", "moments", "best", "average"):
            ours, theirs = getattr(state, part), getattr(found, part)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_nothing_there(self, tmp_path):
        assert checkpoints.load_latest(tmp_path, "s") is None
        assert checkpoints.load_latest(tmp_path / "nowhere", "s") is None

    def test_the_older_one_goes_when_the_newer_is_whole(self, tmp_path):
        for step in (9, 10, 100):
            checkpoints.save(tmp_path, self.state(step), "s")
            assert [path.name for path in tmp_path.iterdir()] == [f"step-{step:08d}"]

    def test_the_newest_whole_one_wins_over_a_newer_half_one(self, tmp_path):
        checkpoints.save(tmp_path, self.state(5), "s")
        half = tmp_path / "step-00000007"
        half.mkdir()
        (half / "weights.safetensors").write_bytes(b"half")
        found = checkpoints.load_latest(tmp_path, "s")
        assert found is not None
        assert found.step == 5

    def test_of_two_whole_ones_the_newer_wins(self, tmp_path):
        """A kill before the older one was removed leaves both."""
        checkpoints.save(tmp_path / "a", self.state(99), "s")
        checkpoints.save(tmp_path / "b", self.state(100), "s")
        (tmp_path / "a" / "step-00000099").rename(tmp_path / "b" / "step-00000099")
        found = checkpoints.load_latest(tmp_path / "b", "s")
        assert found is not None
        assert found.step == 100

    def test_a_kill_while_one_replaces_that_of_the_same_step_leaves_one(
        self, tmp_path, monkeypatch
    ):
        """The last step's checkpoint is written again when training is finished."""
        import os

        replace = os.replace
        for allowed in range(20):
            folder = tmp_path / str(allowed)
            checkpoints.save(folder, self.state(5), "s")
            left = [allowed]

            def stop(source, target, left=left):
                if left[0] == 0:
                    raise Interrupted
                left[0] -= 1
                replace(source, target)

            monkeypatch.setattr(os, "replace", stop)
            finished = self.state(5, record={"finished": True})
            try:
                checkpoints.save(folder, finished, "s")
                done = True
            except Interrupted:
                done = False
            monkeypatch.undo()
            found = checkpoints.load_latest(folder, "s")
            assert found is not None
            assert found.step == 5
            if done:
                assert found.record["finished"]
                break
        assert allowed >= 3  # record, manifest, folder

    def test_moments_come_back(self):
        module = Regression()
        names = {id(value): name for name, value in module.named_parameters()}
        optimizer = torch.optim.AdamW(module.parameters())
        module.train()
        module(batch_of(0))["loss"].backward()  # `late` has no gradient, so it has no moments
        optimizer.step()
        flat = flatten_moments(optimizer, names)
        layers = {f"{layer}.{part}" for layer in ("enter", "leave") for part in ("weight", "bias")}
        assert {name.rsplit(".", 1)[0] for name in flat} == layers
        # By name: the order of the parameters does not matter.
        other = Regression()
        again = torch.optim.AdamW(list(other.parameters())[::-1])
        names = {id(value): name for name, value in other.named_parameters()}
        restore_moments(again, flat, names)
        found = flatten_moments(again, names)
        assert flat.keys() == found.keys()
        assert all(torch.equal(flat[name], found[name]) for name in flat)


def test_every_tensor_of_the_module_is_in_the_checkpoint(tmp_path):
    interrupted(tmp_path, batch=stop_in_batch(4))
    found = next(tmp_path.glob("step-*"))
    from safetensors.torch import load_file

    assert load_file(found / "weights.safetensors").keys() == Regression().state_dict().keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 13),
        ("weight_decay", 0.5),
        ("warmup_share", 0.0),
        ("clip_norm", 2.0),
        ("precision", "bf16"),
        ("seed", 1),
        ("log_every", 4),
        ("validate_every", 2),
        ("patience", 3),
        ("at_once", 3),
        ("averaged_steps", 3),
    ],
)
def test_no_setting_can_change_in_the_middle_of_a_run(tmp_path, field, value):
    interrupted(tmp_path, batch=stop_in_batch(1))
    with pytest.raises(SettingsMismatch):
        run(tmp_path, **{field: value})
