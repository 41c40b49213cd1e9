"""Averaged weights are what is validated and kept, and change nothing of the training itself."""

import pytest
import torch
from safetensors.torch import load_file
from small_training import Interrupted, Regression, assert_same, batch_of, run
from torch import nn

from utgrec.errors import BadConfig
from utgrec.training.averaging import RunningAverage
from utgrec.training.trainer import TrainerConfig

WINDOW = 4


def last_weights(work):
    """The weights that training itself ended with."""
    return load_file(next(work.glob("step-*")) / "weights.safetensors")


def test_an_average_by_hand():
    module = nn.Linear(1, 1, bias=False)
    average = RunningAverage(module, steps=20)
    expected = 0.0
    for step in range(1, 201):
        value = float(step * step % 7)
        with torch.no_grad():
            module.weight.fill_(value)
        average.add(step)
        expected += max(1 / 20, 10 / (9 + step)) * (value - expected)
    with average.shown():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == value


def test_the_average_is_validated_and_kept_while_training_goes_on_without_it(tmp_path):
    seen = []
    module = Regression()

    def validate():
        seen.append(module.enter.weight.clone())
        return {"quality": float(len(seen))}

    kept = run(
        tmp_path / "average", module=module, validate=validate, averaged_steps=WINDOW
    ).weights
    plain = run(tmp_path / "plain").weights
    trained = last_weights(tmp_path / "average")
    assert all(torch.equal(trained[name], last_weights(tmp_path / "plain")[name]) for name in plain)
    assert torch.equal(kept["enter.weight"], seen[-1])
    assert not torch.equal(kept["enter.weight"], trained["enter.weight"])
    assert torch.equal(kept["frozen"], trained["frozen"])
    assert torch.equal(kept["passes"], trained["passes"])


def test_a_window_of_one_step_is_the_weights_themselves(tmp_path):
    settings = {"steps": 30, "validate_every": 30}
    averaged = run(tmp_path / "one", averaged_steps=1, **settings)
    plain = run(tmp_path / "none", **settings)
    for name, value in plain.weights.items():
        torch.testing.assert_close(averaged.weights[name], value)


def test_an_average_survives_a_stop(tmp_path):
    whole = run(tmp_path / "whole", averaged_steps=WINDOW)
    for at in (1, 2, 5, 11):

        def batch(step, at=at):
            if step == at:
                raise Interrupted
            return batch_of(step)

        with pytest.raises(Interrupted):
            run(tmp_path / "cut", batch=batch, averaged_steps=WINDOW)
    assert_same(run(tmp_path / "cut", averaged_steps=WINDOW), whole)


def test_a_validation_that_fails_leaves_the_weights_of_training(tmp_path):
    module, calls = Regression(), []

    def validate():
        calls.append(1)
        raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", module=module, validate=validate, averaged_steps=WINDOW)
    assert calls == [1]
    assert_same(
        run(tmp_path / "cut", averaged_steps=WINDOW), run(tmp_path / "w", averaged_steps=WINDOW)
    )


@pytest.mark.parametrize(
    ("averaged", "every", "said"), [(-1, 1, "got -1"), (5, 0, "validate_every is 0")]
)
def test_what_cannot_be_averaged_is_an_error(averaged, every, said):
    with pytest.raises(BadConfig, match=said):
        TrainerConfig(steps=1, learning_rate=0.1, averaged_steps=averaged, validate_every=every)
