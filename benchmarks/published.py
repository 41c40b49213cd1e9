"""The published recipe of the tokenizer as a set of switches, over the same weights and items.

Each switch does one thing the way the published code does it; with all of them off the step is this
package's own. Losses and gradients are the same with and without, up to rounding: the switches only
change how often, and on how much padding, things are computed.

Shapes: N items of a batch · S prompt tokens · L codes per item · H backbone width · D code
dimension · T text positions · V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from utgrec.tokenizer.alignment import alignment_loss
from utgrec.tokenizer.backbone import Prompts, open_picture
from utgrec.tokenizer.batches import TokenizerBatch
from utgrec.tokenizer.families.family import Read, joined
from utgrec.tokenizer.items import ItemInputs, build_prompts, like_lengths, prompt_lengths
from utgrec.tokenizer.latents import Codec
from utgrec.tokenizer.model import TokenizerModel
from utgrec.tokenizer.reconstruction import MaskDecoder, Noised

Pictures = dict[int, Image.Image]  # by item


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What is done as the published recipe does it."""

    apart: bool = True
    """An item and its positive are encoded in two passes."""
    head_everywhere: bool = True
    """The language-model head is evaluated on every position of every prompt."""
    frozen_every_step: bool = True
    """Pictures are read, and vision tower and latents computed, in every step."""
    right_padding: bool = True
    """Prompts are padded on the right to the longest of the batch, not in groups of like length."""
    whole_logits: bool = True
    """Decoders run once for each target, with all masks for every item; logits exist whole."""
    checkpointing: bool = True
    """Layers of the language model are computed again in the backward pass."""


class PublishedStep:
    """Losses of a batch, and states of items, the published way."""

    def __init__(
        self,
        model: TokenizerModel,
        items: ItemInputs,
        paths: Sequence[Path | None],
        codec: Codec,
        switches: Published,
    ) -> None:
        self.model, self.items, self.paths, self.codec = model, items, paths, codec
        self.switches = switches

    def open(self, rows: np.ndarray) -> Pictures:
        """The pictures of some items, from disk."""
        return {row: open_picture(path) for row in rows if (path := self.paths[row]) is not None}

    def states(self, rows: np.ndarray, pictures: Pictures) -> Tensor:
        """Projected states of some items, not standardised: (N, L, D)."""
        model, length = self.model, len(self.model.queries)
        groups = [np.arange(len(rows))]
        if not self.switches.right_padding:
            lengths = prompt_lengths(self.items, model.backbone, length)[rows]
            groups = like_lengths(lengths, 1, 0)
        parts = [self._group(rows[group], pictures) for group in groups]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(groups)))]

    def _group(self, rows: np.ndarray, pictures: Pictures) -> Tensor:
        model, switches = self.model, self.switches
        prompts = build_prompts(self.items, rows, model.backbone, len(model.queries))
        prompts = prompts.to(model.queries.device)
        shown = [pictures[row] for row in rows if row in pictures]
        if switches.frozen_every_step and shown:
            prompts = prompts._replace(features=self._seen(shown))
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

    def _process(self, pictures: list[Image.Image]) -> Any:
        return self.model.backbone.picture_processor(images=pictures, return_tensors="pt")

    def _seen(self, pictures: list[Image.Image]) -> Tensor:
        """Features of pictures by the model's own processor and forward pass: (M, H)."""
        made = self._process(pictures).to(self.model.queries.device)
        model = self.model.backbone.model
        with torch.no_grad():
            seen = model.get_image_features(made["pixel_values"], made["image_grid_thw"])
        return joined(seen.pooler_output, self.model.backbone.hidden_size)

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

    def encode(self, rows: np.ndarray, positives: np.ndarray, *, encoded: bool) -> Tensor:
        """Codes of some items, and what is done with their positives, which nothing reads.

        As in training they are `encoded`; or, as in the published script, read alone: inference
        uses the collator of training, which reads words and pictures of the positives, too.
        """
        pictures, others = self.open(rows), self.open(positives)
        states = self.states(rows, pictures)
        if encoded:
            self.states(positives, others)
        elif others:
            self._process(list(others.values()))
        return self.model.quantizer.nearest(self.model.standardize(states))

    def __call__(self, batch: TokenizerBatch) -> dict[str, Tensor]:
        """All losses of a batch in which every row is an anchor: those of `TokenizerModel`."""
        model, switches, weights = self.model, self.switches, self.model.weights
        if model.training:
            model._prepare_step()
        rows, latents = batch.rows, batch.latents
        pictures = self.open(rows) if switches.frozen_every_step else {}
        shown = list(pictures.values())
        own = self.states(rows, pictures)
        states = model.standardize(own)
        candidates = states
        if switches.apart:
            others = rows[batch.partner.clamp(min=0).cpu().numpy()]
            pictures = self.open(others) if switches.frozen_every_step else {}
            shown += pictures.values()
            other = self.states(others, pictures)
            mean = own.mean(dim=0)
            variance = (own - mean).square().mean(dim=(0, 2))[:, None]
            positives = (other - mean) * (variance + 1e-8).rsqrt()
            has = (batch.partner >= 0)[:, None, None]
            candidates = torch.where(has, positives, states)
        if shown:
            found = self.codec.encode(shown).to(latents)  # of anchors, then of positives
            latents = latents.clone()
            latents[batch.has_image] = found[: int(batch.has_image.sum())]
        quantized = model.quantizer(states)
        text, partner_text = self._text(quantized.states, batch)
        image, partner_image = self._image(quantized.states, batch._replace(latents=latents))
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
        losses = []
        for wanted in (words, others):
            hidden = decoder.up(whole_layer(decoder.decoder, states, words.shape[1]))  # (N, T, H)
            logits = hidden @ embeddings.T.to(hidden.dtype)  # (N, T, V)
            losses.append(F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten()))
        return losses[0], losses[1]

    def _image(self, states: Tensor, batch: TokenizerBatch) -> tuple[Tensor, Tensor]:
        latents, partner = batch.latents, batch.partner.clamp(min=0)
        decoder = self.model.image_decoder
        time, noise = decoder.head.draw(len(batch.rows), decoder.grid, batch.seed)
        target = Noised(latents, time.to(states.device), noise.to(states.device))
        has = batch.has_image
        rows = has.nonzero()[:, 0]
        others = (has[partner] & (batch.partner >= 0)).nonzero()[:, 0]
        own, other = target.of(rows), target.of(partner[others])
        if not self.switches.whole_logits:
            return tuple(decoder(states, own, rows, other, others))
        losses = []
        for owners, wanted in ((rows, own), (others, other)):
            hidden = whole_layer(decoder.decoder, states[owners], decoder.grid)  # (M, G, W)
            losses.append(decoder.loss(hidden, wanted))
        return losses[0], losses[1]


def whole_layer(layer: MaskDecoder, states: Tensor, positions: int) -> Tensor:
    """`MaskDecoder` as a plain Transformer layer over every item's codes and masks.

    Shapes: (N, L, D) → (N, positions, W).
    """
    codes = layer.enter(states) + layer.code_position  # (N, L, W)
    hidden = torch.cat([codes, layer.mask.expand(len(codes), -1, -1)], dim=1)
    query, key, value = (
        part.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part in layer.mix(layer.attention_norm(hidden)).chunk(3, dim=-1)
    )  # (N, heads, L + P, W / heads)
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    mixed = scores.softmax(dim=-1).to(value.dtype) @ value
    hidden = hidden + layer.out(mixed.transpose(1, 2).flatten(2))
    hidden = hidden[:, codes.shape[1] :][:, :positions]
    return layer.norm(hidden + layer.feed_forward(hidden))


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
