"""The published recipe of the tokenizer as a set of switches, over the same weights and items.

Each switch does one thing the way the published code does it; with all of them off the step is this
package's own. Losses and gradients are the same with and without, up to rounding: the switches only
change how often, and on how much padding, things are computed.

Shapes: N items of a batch · S prompt tokens · L codes per item · H backbone width · D code
dimension · T text positions · V vocabulary.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from utgrec.tokenizer.alignment import alignment_loss
from utgrec.tokenizer.backbone import Prompts
from utgrec.tokenizer.batches import TokenizerBatch
from utgrec.tokenizer.families.family import Read
from utgrec.tokenizer.items import ItemInputs, build_prompts
from utgrec.tokenizer.latents import Codec
from utgrec.tokenizer.model import TokenizerModel
from utgrec.tokenizer.reconstruction import Noised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What is done as the published recipe does it."""

    apart: bool = True
    """An item and its positive are encoded in two passes, also at inference."""
    head_everywhere: bool = True
    """The language-model head is evaluated on every position of every prompt."""
    frozen_every_step: bool = True
    """Vision tower and picture latents are computed in every step."""
    pad_to_max: bool = True
    """Prompts and texts are padded on the right to the longest that is allowed."""
    whole_logits: bool = True
    """The text decoder's logits exist whole, and once for each target."""
    checkpointing: bool = True
    """Layers of the language model are computed again in the backward pass."""


class PublishedStep:
    """Losses of a batch, and states of items, the published way."""

    def __init__(
        self,
        model: TokenizerModel,
        items: ItemInputs,
        pictures: Sequence[Image.Image | None],
        codec: Codec,
        switches: Published,
        longest: int,
        max_text_tokens: int,
    ) -> None:
        """`longest` is the length of the longest prompt that is allowed (tokens)."""
        self.model, self.items, self.pictures, self.codec = model, items, pictures, codec
        self.switches, self.longest, self.max_text = switches, longest, max_text_tokens

    def states(self, rows: np.ndarray) -> Tensor:
        """Projected states of some items, not standardised: (N, L, D)."""
        model, switches = self.model, self.switches
        prompts = build_prompts(self.items, rows, model.backbone, len(model.queries))
        prompts = prompts.to(model.queries.device)
        if switches.pad_to_max:
            prompts = widen(prompts, self.longest, model.backbone.family.pad_token)
        if switches.frozen_every_step:
            shown = [picture for row in rows if (picture := self.pictures[row]) is not None]
            if shown:
                found = model.backbone.picture_features(shown).features
                prompts = prompts._replace(features=found)
        summary = prompts.summary
        queries = model.queries + model.features.queries(summary)
        hidden = self._read(prompts, queries)  # (N, S, H)
        if switches.head_everywhere:
            embeddings = model.backbone.embeddings
            self.unused = hidden @ embeddings.T.to(hidden.dtype)  # (N, S, V), of no use
        length = queries.shape[1]
        places = prompts.lengths[:, None] - length + torch.arange(length, device=hidden.device)
        read = hidden[torch.arange(len(rows), device=hidden.device)[:, None], places]
        return model.features.states(summary) + model.projection(read.float()).float()

    def _read(self, prompts: Prompts, queries: Tensor) -> Tensor:
        """Hidden states of all positions, as `Backbone` computes them: (N, S, H)."""
        family = self.model.backbone.family
        embedded = family.embed(prompts.tokens)
        dtype, width = embedded.dtype, embedded.shape[-1]
        embedded[prompts.picture] = prompts.features[:, :width].to(dtype)
        length = queries.shape[1]
        device = embedded.device
        places = prompts.lengths[:, None] - length + torch.arange(length, device=device)
        embedded[torch.arange(len(places), device=device)[:, None], places] = queries.to(dtype)
        read = Read(prompts.positions, prompts.picture, None)
        return family.run(embedded, prompts.features, read)

    def encode(self, rows: np.ndarray, positives: np.ndarray) -> Tensor:
        """Codes of some items; the positives are encoded as well, and not used."""
        states = self.states(rows)
        if self.switches.apart:
            self.states(positives)
        return self.model.quantizer.nearest(self.model.standardize(states))

    def __call__(self, batch: TokenizerBatch) -> dict[str, Tensor]:
        """All losses of a batch in which every row is an anchor: those of `TokenizerModel`."""
        model, switches, weights = self.model, self.switches, self.model.weights
        if model.training:
            model._prepare_step()
        own = self.states(batch.rows)
        states = model.standardize(own)
        candidates = states
        if switches.apart:
            other = self.states(batch.rows[batch.partner.clamp(min=0).cpu().numpy()])
            mean = own.mean(dim=0)
            variance = (own - mean).square().mean(dim=(0, 2))[:, None]
            positives = (other - mean) * (variance + 1e-8).rsqrt()
            has = (batch.partner >= 0)[:, None, None]
            candidates = torch.where(has, positives, states)
        quantized = model.quantizer(states)
        text, partner_text = self._text(quantized.states, batch)
        image, partner_image = self._image(quantized.states, batch)
        alignment = (
            apart_alignment(states, candidates, batch, model.temperature)
            if switches.apart
            else alignment_loss(states, batch.partner, batch.false_negatives, model.temperature)
        )
        if model.training:
            model.quantizer.count_step()
        loss = text + weights.image * image + weights.code * quantized.loss
        loss = loss + weights.alignment * alignment
        loss = loss + weights.partner * (partner_text + weights.image * partner_image)
        return {
            "loss": loss, "text": text, "image": image, "code": quantized.loss,
            "alignment": alignment, "partner_text": partner_text, "partner_image": partner_image,
        }  # fmt: skip

    def _text(self, states: Tensor, batch: TokenizerBatch) -> tuple[Tensor, Tensor]:
        words = batch.words
        partner = batch.partner
        others = torch.where((partner >= 0)[:, None], words[partner.clamp(min=0)], -100)
        decoder, embeddings = self.model.text_decoder, self.model.backbone.embeddings
        if not self.switches.whole_logits:
            return tuple(decoder(states, words, others, embeddings))
        width = decoder.decoder.mask.shape[0] if self.switches.pad_to_max else words.shape[1]
        losses = []
        for wanted in (words, others):
            # All masks see one another, so more of them would be another decoder: what is beyond
            # the longest text of the batch is padded after it, to its favour.
            more = width - wanted.shape[1]
            hidden = decoder.decoder(states)[:, : wanted.shape[1]]
            hidden = decoder.up(F.pad(hidden, (0, 0, 0, more)))  # (N, T, H)
            wanted = F.pad(wanted, (0, more), value=-100)
            logits = hidden @ embeddings.T.to(hidden.dtype)  # (N, T, V)
            losses.append(F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten()))
        return losses[0], losses[1]

    def _image(self, states: Tensor, batch: TokenizerBatch) -> tuple[Tensor, Tensor]:
        latents, partner = batch.latents, batch.partner.clamp(min=0)
        if self.switches.frozen_every_step:
            shown = [picture for row in batch.rows if (picture := self.pictures[row]) is not None]
            if shown:
                latents = latents.clone()
                latents[batch.has_image] = self.codec.encode(shown).to(latents)
        decoder = self.model.image_decoder
        time, noise = decoder.head.draw(len(batch.rows), decoder.grid, batch.seed)
        target = Noised(latents, time.to(states.device), noise.to(states.device))
        has = batch.has_image
        rows = has.nonzero()[:, 0]
        others = (has[partner] & (batch.partner >= 0)).nonzero()[:, 0]
        own, other = target.of(rows), target.of(partner[others])
        if not self.switches.whole_logits:
            return tuple(decoder(states, own, rows, other, others))
        none = rows[:0]
        first = decoder(states, own, rows, target.of(none), none).own
        return first, decoder(states, target.of(none), none, other, others).partner


def apart_alignment(
    states: Tensor, positives: Tensor, batch: TokenizerBatch, temperature: float
) -> Tensor:
    """`alignment_loss` with positives from a pass of their own. Shapes: (N, L, D) twice."""
    anchors = (batch.partner >= 0).nonzero()[:, 0]
    unit = F.normalize(states.float(), dim=-1).transpose(0, 1)  # (L, N, D)
    paired = F.normalize(positives.float(), dim=-1).transpose(0, 1)
    similarity = unit[:, anchors] @ unit.transpose(1, 2) / temperature  # (L, A, N)
    wanted = batch.partner[anchors]
    rows = torch.arange(len(anchors), device=states.device)
    hidden = batch.false_negatives[anchors].clone()
    hidden[rows, anchors] = True
    hidden[rows, wanted] = False
    own = (unit[:, anchors] * paired[:, anchors]).sum(dim=-1) / temperature  # (L, A)
    similarity = similarity.masked_fill(hidden, -torch.inf)
    column = torch.zeros_like(similarity, dtype=torch.bool)
    column[:, rows, wanted] = True
    similarity = torch.where(column, own[:, :, None], similarity)
    return F.cross_entropy(similarity.flatten(0, 1), wanted.repeat(len(similarity)))


def widen(prompts: Prompts, longest: int, pad: int) -> Prompts:
    """The same prompts, padded on the right to a fixed length."""
    more = max(0, longest - prompts.tokens.shape[1])
    return prompts._replace(
        tokens=F.pad(prompts.tokens, (0, more), value=pad),
        positions=F.pad(prompts.positions, (0, more)),
        picture=F.pad(prompts.picture, (0, more)),
    )


def set_checkpointing(model: TokenizerModel, on: bool) -> None:
    """Turn transformers' own gradient checkpointing on or off."""
    inner = model.backbone.model
    # The older name warns in newer releases.
    name = "activation" if hasattr(inner, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(inner, f"{name}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(inner, f"{name}_checkpointing_disable")()


__all__ = ["Published", "PublishedStep", "set_checkpointing"]
