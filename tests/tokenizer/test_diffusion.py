"""The diffusion head: its schedule is the known one, and it learns what it is shown."""

import pytest
import torch

from utgrec.tokenizer.diffusion import DiffusionHead, cosine_signal


def make(**changes) -> DiffusionHead:
    """A small head."""
    torch.manual_seed(0)
    values = {"channels": 3, "condition": 4, "width": 16, "depth": 2, "steps": 50, "draws": 2}
    return DiffusionHead(**{**values, **changes})


@pytest.mark.parametrize("steps", [10, 1000])
def test_the_schedule_is_that_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a development dependency")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2"
    )
    torch.testing.assert_close(cosine_signal(steps), scheduler.alphas_cumprod, atol=0, rtol=1e-6)


def test_the_signal_fades_from_nearly_all_to_nearly_nothing():
    signal = cosine_signal(1000)
    assert (signal.diff() < 0).all()
    assert float(signal[0]) > 0.999
    assert float(signal[-1]) < 1e-6


def test_a_fresh_head_predicts_no_noise():
    """Its error is then the noise's own variance, 1: calm first steps."""
    head = make(draws=400)
    with torch.no_grad():
        loss = head.loss(torch.randn(20, 3), torch.randn(20, 4))
    assert loss.item() == pytest.approx(1.0, abs=0.03)


def test_it_learns_a_constant_latent():
    head = make(draws=4)
    latents = torch.tensor([[1.0, -2.0, 0.5]]).expand(32, 3)
    condition = torch.ones(32, 4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = head.loss(latents, condition)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_condition_tells_which_latent_it_is():
    """Two latents told apart by the condition are learned better than without it."""
    results = {}
    for told in (True, False):
        head = make(draws=4)
        kind = torch.arange(32) % 2
        latents = torch.where(kind[:, None] == 0, 2.0, -2.0).expand(32, 3)
        condition = torch.nn.functional.one_hot(kind, 4).float() if told else torch.zeros(32, 4)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        losses = []
        for step in range(80):
            torch.manual_seed(step)
            optimizer.zero_grad()
            loss = head.loss(latents, condition)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results[told] = sum(losses[-20:]) / 20
    assert results[True] < 0.9 * results[False]


def test_nothing_to_learn_is_exactly_zero():
    head = make()
    condition = torch.zeros(0, 4, requires_grad=True)
    loss = head.loss(torch.zeros(0, 3), condition)
    assert loss.item() == 0
    loss.backward()
    for parameter in head.parameters():
        assert parameter.grad is None or torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_the_noised_latent_by_hand(monkeypatch):
    """√ᾱ · latent + √(1 − ᾱ) · noise, at the time that was drawn, against the noise itself."""
    head = make(draws=2)
    seen = {}

    def forward(noised, time, condition):
        seen.update(noised=noised, time=time, condition=condition)
        return torch.zeros_like(noised)

    monkeypatch.setattr(head, "forward", forward)
    latents, condition = torch.randn(5, 3), torch.randn(5, 4)
    torch.manual_seed(3)
    loss = head.loss(latents, condition)
    torch.manual_seed(3)
    time = torch.randint(50, (10,))
    noise = torch.randn(10, 3)
    signal = cosine_signal(50)[time][:, None]
    expected = signal.sqrt() * latents.repeat(2, 1) + (1 - signal).sqrt() * noise
    assert torch.equal(seen["time"], time)
    torch.testing.assert_close(seen["noised"], expected)
    assert torch.equal(seen["condition"], condition.repeat(2, 1))
    torch.testing.assert_close(loss, noise.square().mean())


def test_time_and_condition_matter_once_trained():
    head = make()
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    noised, condition = torch.randn(2, 3), torch.randn(2, 4)
    base = head(noised, torch.tensor([3, 3]), condition)
    assert not torch.allclose(base, head(noised, torch.tensor([30, 30]), condition))
    assert not torch.allclose(base, head(noised, torch.tensor([3, 3]), condition + 1))
    torch.testing.assert_close(base[:1], head(noised[:1], torch.tensor([3]), condition[:1]))


@pytest.mark.parametrize("width", [15, 16])
def test_odd_widths_work(width):
    assert make(width=width)(torch.randn(2, 3), torch.tensor([0, 49]), torch.randn(2, 4)).shape == (
        2,
        3,
    )
