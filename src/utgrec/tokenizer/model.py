"""The universal tokenizer's network: an item in, codes out, and the losses that train it.

Shapes: N items of a batch · B of them that this process encodes · L codes per item ·
H backbone width · D code dimension · T text positions.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utgrec.config import require
from utgrec.errors import CorruptFile
from utgrec.tokenizer.alignment import alignment_loss
from utgrec.tokenizer.backbone import Backbone, Prompts
from utgrec.tokenizer.batches import TokenizerBatch
from utgrec.tokenizer.company import CompanyConfig
from utgrec.tokenizer.diffusion import DiffusionHead
from utgrec.tokenizer.features import ItemFeatures, loudness
from utgrec.tokenizer.kl_latents import KLLatentsConfig
from utgrec.tokenizer.latents import LatentsConfig
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer
from utgrec.tokenizer.reconstruction import ImageDecoder, Noised, Reconstruction, TextDecoder
from utgrec.training.distributed import copy_first, gather_rows

# How loud the backbone's part of a state is at the start, as a share of torch's own choice.
BACKBONE_START = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the sum that is minimised (paper §4.1.3). The text weighs 1."""

    image: float = 5.0
    """Rebuilding the item's picture."""
    code: float = 200.0
    """Codebooks and commitment."""
    alignment: float = 0.01
    """Contrast with the partner."""
    partner: float = 0.03
    """Rebuilding the partner's text, and its picture `image` times as much."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Sizes of everything around the backbone."""

    projection_width: int = 768
    """Hidden width of the projection from the backbone to states."""
    dropout: float = 0.1
    """Dropout inside the projection."""
    decoder_width: int = 256
    """Width of the text and image decoders."""
    decoder_heads: int = 4
    """Attention heads of the decoders."""
    diffusion_width: int = 1024
    """Width of the diffusion head."""
    diffusion_depth: int = 3
    """Residual blocks of the diffusion head."""
    diffusion_steps: int = 1000
    """Noise levels."""
    diffusion_draws: int = 4
    """Noises drawn per latent and training step."""
    max_text_tokens: int = 128
    """Text tokens read and rebuilt per item; longer texts are cut."""
    temperature: float = 0.1
    """Temperature of the alignment."""

    def __post_init__(self) -> None:
        require(
            self.decoder_width % self.decoder_heads == 0,
            f"decoder_width must be a multiple of decoder_heads, got {self}",
        )
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")
        require(self.max_text_tokens >= 1, f"max_text_tokens is at least 1, got {self}")
        require(self.temperature > 0, f"temperature must be above 0, got {self.temperature}")


class Standardize(nn.Module):
    """Centre states and bring them to unit variance, one mean and one scale per position.

    In training with the figures of the batch, afterwards with their running averages, so an item's
    states do not depend on the items beside it. The scale is one number for all coordinates, so
    directions in which items differ much keep their weight.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, length: int, dim: int, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(length, dim))
        self.register_buffer("variance", torch.ones(length, 1))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, states: Tensor) -> Tensor:
        """Shapes: (B, L, D) → (B, L, D)."""
        if not self.training or len(states) < 2:  # one item alone has no variance
            return (states - self.mean) * (self.variance + 1e-8).rsqrt()
        mean = states.mean(dim=0)  # (L, D)
        variance = (states - mean).square().mean(dim=(0, 2))[:, None]  # (L, 1)
        with torch.no_grad():
            self.batches += 1
            # The plain mean of the first batches: what the buffers start from carries no weight.
            share = max(self.momentum, 1 / int(self.batches))
            self.mean.lerp_(mean, share)
            self.variance.lerp_(variance, share)
        return (states - mean) * (variance + 1e-8).rsqrt()

    @torch.no_grad()
    def refit(self, standardized: Tensor) -> None:
        """Measure mean and scale anew on what this made of some items. Shapes: (N, L, D)."""
        if len(standardized) < 2:  # one item alone has no variance
            return
        standardized = standardized.to(self.mean.device)
        scale = (self.variance + 1e-8).sqrt()  # (L, 1)
        mean = standardized.mean(dim=0)  # (L, D)
        spread = (standardized - mean).square().mean(dim=(0, 2))[:, None]  # (L, 1)
        self.mean.add_(mean * scale)
        self.variance.copy_(spread * scale.square())


class TokenizerModel(nn.Module):
    """Backbone, projection, quantiser and decoders."""

    def __init__(
        self,
        backbone: Backbone,
        quantizer: QuantizerConfig,
        heads: HeadsConfig,
        latents: LatentsConfig | KLLatentsConfig,
        weights: LossWeights,
        company: CompanyConfig,
    ) -> None:
        super().__init__()
        self.weights = weights
        # Whether the last step wrote into its own weights; whoever keeps copies must know.
        self.weights_written = False
        self.temperature = heads.temperature
        hidden, dim, length = backbone.hidden_size, quantizer.dim, quantizer.code_length
        self.backbone = backbone
        # Quieter than words: what queries read of the item is most of their state from the start.
        scale = 0.5 * loudness(backbone.embeddings)
        self.queries = nn.Parameter(torch.randn(length, hidden) * scale)  # (L, H)
        self.features = ItemFeatures(company, backbone.embeddings, length, dim)
        self.projection = nn.Sequential(
            nn.Linear(hidden, heads.projection_width),
            nn.GELU(),
            nn.Dropout(heads.dropout),
            nn.Linear(heads.projection_width, dim),
        )
        # States begin as closed-form features; what the backbone adds starts small and grows.
        with torch.no_grad():
            for parameter in self.projection[-1].parameters():
                parameter.mul_(BACKBONE_START)
        # What all items share dwarfs what tells them apart, above all with a backbone that starts
        # at random; standardised states cannot collapse into one point.
        self.standardize = Standardize(length, dim)
        self.quantizer = TreeQuantizer(quantizer)
        width, attention = heads.decoder_width, heads.decoder_heads
        self.text_decoder = TextDecoder(
            dim, width, attention, length, heads.max_text_tokens, hidden
        )
        head = DiffusionHead(
            latents.channels,
            width,
            heads.diffusion_width,
            heads.diffusion_depth,
            heads.diffusion_steps,
            heads.diffusion_draws,
        )
        self.image_decoder = ImageDecoder(dim, width, attention, length, latents.grid, head)

    def states(self, prompts: Prompts) -> Tensor:
        """Projected hidden states of the code queries, before quantisation: (B, L, D)."""
        out: Tensor = self.standardize(self._project(prompts))
        return out

    def forward(self, batch: TokenizerBatch) -> dict[str, Tensor]:
        """All losses of a batch by name; "loss" is their weighted sum.

        Their means over the processes that share the batch are the losses of the batch.
        """
        if self.training:
            self._prepare_step()
        # Everyone has all states: they are standardised, quantised and contrasted as one batch.
        projected = torch.cat([self._projected(part, batch) for part in batch.prompts])
        states = self.standardize(gather_rows(projected, batch.sizes)[batch.order])  # (N, L, D)
        quantized = self.quantizer(states)
        own = quantized.states[batch.own]  # (B, L, D)
        text = self._text(own, batch)
        image = self._image(own, batch)
        alignment = alignment_loss(states, batch.partner, batch.false_negatives, self.temperature)
        weights = self.weights
        loss = (
            text.own
            + weights.image * image.own
            + weights.code * quantized.loss
            + weights.alignment * alignment
            + weights.partner * (text.partner + weights.image * image.partner)
        )
        if self.training:
            self.quantizer.count_step()
        return {
            "loss": loss,
            "text": text.own,
            "image": image.own,
            "code": quantized.loss,
            "alignment": alignment,
            "partner_text": text.partner,
            "partner_image": image.partner,
        }

    def _prepare_step(self) -> None:
        """Place or revive codes; all processes take what the first one came to."""
        self.weights_written = self.quantizer.prepare_step()
        if self.weights_written:
            copy_first(self.quantizer.state_dict().values())

    def _project(self, prompts: Prompts) -> Tensor:
        """States as they are before they are standardised: (B, L, D)."""
        summary = self.features.hide_company(prompts.summary)
        queries = self.queries + self.features.queries(summary)  # (B, L, H)
        hidden = self.backbone(prompts, queries).float()  # (B, L, H)
        projected = self.projection(hidden).float()
        out: Tensor = self.features.states(summary) + projected
        return out

    def _projected(self, prompts: Prompts, batch: TokenizerBatch) -> Tensor:
        if not batch.recompute or not self.training:
            return self._project(prompts)
        # The states of a group are kept, what led to them is computed again when it is needed: the
        # memory of one group, the losses and gradients of the whole batch.
        out: Tensor = checkpoint(self._project, prompts, use_reentrant=False)
        return out

    def _text(self, states: Tensor, batch: TokenizerBatch) -> Reconstruction:
        """The words of own items and of their partners. Shape: (B, L, D)."""
        words = batch.words
        partner = batch.partner[:, None]
        others = torch.where(partner >= 0, words[batch.partner.clamp(min=0)], -100)  # (N, T)
        own = batch.own
        found = self.text_decoder(states, words[own], others[own], self.backbone.embeddings)
        return Reconstruction(
            *(
                loss * _share((given[own] >= 0).sum(), (given >= 0).sum(), batch)
                for loss, given in zip(found, (words, others), strict=True)
            )
        )

    def _image(self, states: Tensor, batch: TokenizerBatch) -> Reconstruction:
        """The pictures of own items and of their partners. Shape: (B, L, D)."""
        head, grid = self.image_decoder.head, self.image_decoder.grid
        time, noise = head.draw(len(batch.rows), grid, batch.seed)
        target = Noised(batch.latents, time.to(states.device), noise.to(states.device))
        partner = batch.partner.clamp(min=0)
        has, partner_has = batch.has_image, batch.has_image[partner] & (batch.partner >= 0)  # (N,)
        own = batch.own
        own_rows, other_rows = has[own].nonzero()[:, 0], partner_has[own].nonzero()[:, 0]
        wanted, others = target.of(own[own_rows]), target.of(partner[own[other_rows]])
        found = self.image_decoder(states, wanted, own_rows, others, other_rows)
        out = Reconstruction(
            found.own * _share(len(own_rows), has.sum(), batch),
            found.partner * _share(len(other_rows), partner_has.sum(), batch),
        )
        if len(batch.sizes) > 1 and bool(has.any()) and not len(own_rows) + len(other_rows):
            # All processes must use the same weights, or their gradients do not meet.
            unused = sum(parameter.sum() for parameter in self.image_decoder.parameters())
            out = Reconstruction(out.own + 0.0 * unused, out.partner)
        return out

    def kept_state(self) -> dict[str, Tensor]:
        """The state without what is read from the base model again: what a checkpoint needs."""
        base = {f"backbone.{name}" for name in self.backbone.base_names()}
        return {name: value for name, value in self.state_dict().items() if name not in base}

    def load_kept(self, state: dict[str, Tensor]) -> None:
        """The inverse of `kept_state`.

        Raises:
            CorruptFile: the state is that of another network.
        """
        missing, unknown = self.load_state_dict(state, strict=False)
        base = {f"backbone.{name}" for name in self.backbone.base_names()}
        lacking = sorted(set(missing) - base)
        if lacking or unknown:
            raise CorruptFile(
                f"the weights are those of another network: {len(lacking)} are missing and "
                f"{len(unknown)} unknown, among them {', '.join([*lacking, *unknown][:3])}"
            )


def _share(here: Tensor | int, everywhere: Tensor, batch: TokenizerBatch) -> Tensor | float:
    """What turns a mean over the targets here into this process's part of the mean over all."""
    if len(batch.sizes) == 1:
        return 1.0
    return len(batch.sizes) * here / everywhere.clamp(min=1)
