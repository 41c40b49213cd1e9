"""What the decoders say comes from the codes alone, and their losses are the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from utgrec.tokenizer.diffusion import DiffusionHead
from utgrec.tokenizer.reconstruction import ImageDecoder, MaskDecoder, Noised, TextDecoder

DIM, WIDTH, HIDDEN, LENGTH, POSITIONS, VOCABULARY = 6, 8, 10, 3, 5, 12
GRID, CHANNELS = 4, 3


def shake(module):
    """Give every weight a value that is not special."""
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


@pytest.fixture
def text():
    """A text decoder and an embedding matrix."""
    torch.manual_seed(0)
    decoder = shake(TextDecoder(DIM, WIDTH, 2, LENGTH, POSITIONS, HIDDEN))
    return decoder, torch.randn(VOCABULARY, HIDDEN)


@pytest.fixture
def image():
    """An image decoder."""
    torch.manual_seed(0)
    head = DiffusionHead(CHANNELS, WIDTH, 8, 1, 50, 2)
    return shake(ImageDecoder(DIM, WIDTH, 2, LENGTH, GRID, head))


def draw_states(count=4, seed=1):
    """States of some items."""
    return torch.randn(count, LENGTH, DIM, generator=torch.Generator().manual_seed(seed))


TOKENS = torch.tensor([[1, 2, 3, 4], [5, -100, -100, -100], [-100] * 4, [6, 7, 0, -100]])
PARTNER = torch.tensor([3, -1, 0, 2])
NOBODY = torch.full((4,), -1)


def others(tokens, partner):
    """The words of the items' partners, -100 without one."""
    return torch.where((partner >= 0)[:, None], tokens[partner.clamp(min=0)], -100)


class TestText:
    def logits(self, text, states, positions=4):
        """Logits of every position, (B, T, V)."""
        decoder, embeddings = text
        return decoder.up(decoder.decoder(states)[:, :positions]) @ embeddings.T

    def test_the_loss_is_plain_cross_entropy(self, text):
        decoder, embeddings = text
        out = decoder(draw_states(), TOKENS, others(TOKENS, PARTNER), embeddings)
        logits = self.logits(text, draw_states()).transpose(1, 2)
        torch.testing.assert_close(out.own, F.cross_entropy(logits, TOKENS))
        wanted = TOKENS[[3, 1, 0, 2]].clone()
        wanted[1] = -100  # has no partner
        torch.testing.assert_close(out.partner, F.cross_entropy(logits, wanted))

    def test_texts_as_long_as_allowed_and_padded_beyond(self, text):
        """Batches are padded to round widths, which may be more than the longest text allowed."""
        decoder, embeddings = text
        assert POSITIONS == 5
        tokens = torch.full((4, 8), -100)
        tokens[:, :5] = torch.randint(VOCABULARY, (4, 5))
        tokens[1, 2:] = -100
        out = decoder(draw_states(), tokens, others(tokens, PARTNER), embeddings)
        logits = self.logits(text, draw_states(), 8).transpose(1, 2)
        torch.testing.assert_close(out.own, F.cross_entropy(logits, tokens))

    def test_the_loss_of_an_item_does_not_depend_on_longer_ones_beside_it(self, text):
        """Neither on how wide the batch is padded for them."""
        decoder, embeddings = text
        alone = decoder(draw_states()[1:2], TOKENS[1:2, :1], TOKENS[1:2, :1], embeddings)
        padded = F.pad(TOKENS[1:2], (0, 4), value=-100)
        beside = decoder(draw_states()[1:2], padded, padded, embeddings)
        torch.testing.assert_close(beside.own, alone.own)
        sizes = (TOKENS >= 0).sum(dim=1)
        single = [
            decoder(draw_states()[[row]], TOKENS[[row], :size], NOBODY[:size][None], embeddings).own
            for row, size in enumerate(sizes.tolist())
        ]
        together = decoder(draw_states(), TOKENS, others(TOKENS, NOBODY), embeddings).own
        mean = (torch.stack(single) * sizes).sum() / sizes.sum()
        torch.testing.assert_close(together, mean)

    def test_partners_do_not_change_the_own_loss(self, text):
        decoder, embeddings = text
        alone = decoder(draw_states(), TOKENS, others(TOKENS, NOBODY), embeddings)
        together = decoder(draw_states(), TOKENS, others(TOKENS, PARTNER), embeddings)
        torch.testing.assert_close(alone.own, together.own)
        assert alone.partner.item() == 0

    def test_no_token_is_shown_to_the_decoder(self, text):
        """Chances over all values of one token add up to 1, whatever the other tokens are."""
        decoder, embeddings = text
        for other in (0, 5, 11):
            total = 0.0
            for value in range(VOCABULARY):
                tokens = torch.full((1, 4), other)
                tokens[0, 1] = value
                states, lone = draw_states(1), torch.full((1, 4), -100)
                # The mean of four tokens, less that of the three others.
                whole = 4 * decoder(states, tokens, lone, embeddings).own
                logits = self.logits(text, states)[0]
                rest = F.cross_entropy(logits[[0, 2, 3]], tokens[0, [0, 2, 3]], reduction="sum")
                total += (rest - whole).exp().item()
            assert total == pytest.approx(1, abs=1e-4)

    def test_every_state_matters_at_every_position(self, text):
        for place in range(LENGTH):
            moved = draw_states()
            moved[:, place] += 1
            gap = (self.logits(text, moved) - self.logits(text, draw_states())).abs()
            assert (gap.amax(dim=-1) > 1e-3).all()

    def test_no_text_at_all(self, text):
        decoder, embeddings = text
        states = draw_states().requires_grad_()
        nothing = torch.full((4, 1), -100)
        out = decoder(states, nothing, nothing, embeddings)
        (out.own + out.partner).backward()
        assert out.own.item() == out.partner.item() == 0
        assert torch.equal(states.grad, torch.zeros_like(states))

    def test_only_partners_have_text(self, text):
        decoder, embeddings = text
        tokens, partner = torch.tensor([[-100], [4]]), torch.tensor([1, -1])
        out = decoder(draw_states(2), tokens, others(tokens, partner), embeddings)
        logits = self.logits(text, draw_states(2), 1)[:, 0]
        torch.testing.assert_close(out.own, F.cross_entropy(logits[1:], torch.tensor([4])))
        torch.testing.assert_close(out.partner, F.cross_entropy(logits[:1], torch.tensor([4])))

    def test_gradients_reach_states_weights_and_embeddings(self, text):
        decoder, embeddings = text
        states, embeddings = draw_states().requires_grad_(), embeddings.requires_grad_()
        sum(decoder(states, TOKENS, others(TOKENS, PARTNER), embeddings)).backward()
        assert (states.grad.abs().amax(dim=-1) > 0).all()
        assert embeddings.grad.abs().sum() > 0
        for name, parameter in decoder.named_parameters():
            assert parameter.grad.abs().sum() > 0, name

    def test_under_autocast_the_loss_is_nearly_the_same(self, text):
        decoder, embeddings = text
        exact = decoder(draw_states(), TOKENS, others(TOKENS, PARTNER), embeddings)
        with torch.autocast("cpu", torch.bfloat16):
            rough = decoder(draw_states(), TOKENS, others(TOKENS, PARTNER), embeddings)
        assert rough.own.dtype == torch.float32
        for ours, theirs in zip(rough, exact, strict=True):
            torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0.05)


class TestMaskDecoder:
    def test_attention_is_that_of_torch(self):
        """The layer, written with torch's own attention."""
        torch.manual_seed(0)
        layer = shake(MaskDecoder(DIM, WIDTH, 2, LENGTH, POSITIONS))
        states = draw_states()
        codes = layer.enter(states) + layer.code_position
        hidden = torch.cat([codes, layer.mask.expand(4, -1, -1)], dim=1)
        query, key, value = (
            part.view(4, LENGTH + POSITIONS, 2, WIDTH // 2).transpose(1, 2)
            for part in layer.mix(layer.attention_norm(hidden)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + layer.out(mixed)
        hidden = layer.norm(hidden + layer.feed_forward(hidden))[:, LENGTH:]
        torch.testing.assert_close(layer(states), hidden)

    def test_an_item_does_not_depend_on_the_others(self):
        torch.manual_seed(0)
        layer = shake(MaskDecoder(DIM, WIDTH, 2, LENGTH, POSITIONS))
        states = draw_states()
        together = layer(states)
        for item in range(4):
            torch.testing.assert_close(layer(states[item : item + 1])[0], together[item])

    def test_some_places_are_those_of_all(self):
        torch.manual_seed(0)
        layer, states = shake(MaskDecoder(DIM, WIDTH, 2, LENGTH, POSITIONS)), draw_states()
        places = torch.tensor([3, 0, 19, 7, 7])
        torch.testing.assert_close(layer(states, places), layer(states).flatten(0, 1)[places])

    def test_positions_are_told_apart(self):
        torch.manual_seed(0)
        layer = MaskDecoder(DIM, WIDTH, 2, LENGTH, POSITIONS)
        out = layer(draw_states(1))[0]
        assert torch.pdist(out).min() > 1e-3


HAS_IMAGE = torch.tensor([True, False, True, False])


def draw_latents():
    """Latents of four items; zeros without picture, as a batch has them."""
    latents = torch.randn(4, GRID, CHANNELS, generator=torch.Generator().manual_seed(2))
    latents[~HAS_IMAGE] = 0
    return latents


def rebuild(image, states, latents, has_image, partner):
    """The image decoder's losses, with every latent's noise drawn from one seed."""
    time, noise = image.head.draw(len(latents), GRID, seed=5)
    target = Noised(latents, time, noise)
    own = has_image.nonzero()[:, 0]
    other = (has_image[partner.clamp(min=0)] & (partner >= 0)).nonzero()[:, 0]
    return image(states, target.of(own), own, target.of(partner[other]), other)


class TestImage:
    def expected(self, image, rows, targets):
        """The diffusion head's loss of rows' hidden states against the targets' latents."""
        hidden = image.decoder(draw_states()[rows])
        time, noise = image.head.draw(4, GRID, seed=5)
        losses = []
        for draw in range(2):
            kept = image.head.signal[time[targets, draw]][..., None]
            latents, added = draw_latents()[targets], noise[targets, draw]
            noised = kept.sqrt() * latents + (1 - kept).sqrt() * added
            times = time[targets, draw].flatten()
            predicted = image.head(noised.flatten(0, 1), times, hidden.flatten(0, 1))
            losses.append((predicted - added.flatten(0, 1)).square().mean())
        return torch.stack(losses).mean()

    def test_own_and_partners_latents(self, image):
        out = rebuild(image, draw_states(), draw_latents(), HAS_IMAGE, PARTNER)
        own = self.expected(image, [0, 2], [0, 2])
        # Partners: 0 → 3 (no picture), 1 → none, 2 → 0, 3 → 2.
        partner = self.expected(image, [2, 3], [0, 2])
        torch.testing.assert_close(out.own, own)
        torch.testing.assert_close(out.partner, partner)

    def test_noise_is_that_of_the_picture_wherever_it_is_used(self, image):
        time, noise = image.head.draw(4, GRID, seed=5)
        again = image.head.draw(4, GRID, seed=5)
        assert torch.equal(time, again[0]) and torch.equal(noise, again[1])
        assert not torch.equal(noise, image.head.draw(4, GRID, seed=6)[1])
        assert noise.shape == (4, 2, GRID, CHANNELS) and time.min() >= 0 and time.max() < 50

    def test_items_without_picture_take_no_part(self, image):
        out = rebuild(image, draw_states(), draw_latents(), HAS_IMAGE, NOBODY)
        other = draw_latents()
        other[1] = other[3] = torch.nan  # never looked at
        moved = draw_states()
        moved[1] += 9
        again = rebuild(image, moved, other, HAS_IMAGE, NOBODY)
        assert torch.equal(out.own, again.own)
        assert again.partner.item() == 0

    @pytest.mark.parametrize("partner", [PARTNER, NOBODY])
    def test_no_picture_at_all_is_exactly_zero(self, image, partner):
        states = draw_states().requires_grad_()
        nothing = torch.zeros(4, dtype=torch.bool)
        out = rebuild(image, states, torch.zeros(4, GRID, CHANNELS), nothing, partner)
        assert out.own.item() == out.partner.item() == 0
        (out.own + 5 * out.partner).backward()
        assert torch.equal(states.grad, torch.zeros_like(states))
        for parameter in image.parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()

    def test_gradients_reach_states_and_weights(self, image):
        states = draw_states().requires_grad_()
        sum(rebuild(image, states, draw_latents(), HAS_IMAGE, NOBODY)).backward()
        assert torch.equal(states.grad.abs().sum(dim=(1, 2)) > 0, HAS_IMAGE)
        for name, parameter in image.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
