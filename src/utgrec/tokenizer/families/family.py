"""What a kind of model must tell, so that one backbone can drive all kinds.

A family knows where its model keeps things, how a prompt is laid out, and which method of the model
makes picture features. It never changes a model.

Shapes: B items · S prompt tokens · H backbone width · M picture tokens · F width of features.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from utgrec.errors import BadConfig

WITH_IMAGE = "Compress the picture and the words into codes, from coarse to fine:"
WITHOUT_IMAGE = "Compress the words into codes, from coarse to fine:"


class Prompt(NamedTuple):
    """One prompt before the code queries."""

    tokens: npt.NDArray[np.int64]  # (S,)
    positions: npt.NDArray[np.int64]  # (3, S), time, height and width; all equal for most families
    picture: slice  # where the picture tokens stand
    next_position: int  # position of the first code query


class Family:
    """A model with words and pictures; subclasses say what is different."""

    model_types: ClassVar[tuple[str, ...]] = ()
    """What `config.json` calls models of this family."""
    reads_words: ClassVar[bool] = True
    reads_pictures: ClassVar[bool] = True
    causal: ClassVar[bool] = True
    """Whether a token sees only those before it, so that padding on the right is never seen."""

    def __init__(self, model: Any, text_tokenizer: Any, picture_processor: Any) -> None:
        self.model = model
        self.text_tokenizer = text_tokenizer
        self.picture_processor = picture_processor
        self.pad_token = self._pad_token()
        self._frames: dict[bool, tuple[list[int], list[int]]] = {}

    # ------------------------------------------------------------------------------ where what is

    @property
    def language_model(self) -> nn.Module:
        """The part that reads the prompt: where adapters go."""
        part: nn.Module = self.model.language_model
        return part

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that are never trained: what makes picture features (paper §4.1.3)."""
        return (self.model.visual,)

    @property
    def trained(self) -> nn.Module | None:
        """Layers of our own that the family needs and trains in full; most need none."""
        return None

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, H."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def feature_width(self) -> int:
        """Width of what is kept of a picture token, F; its first H columns stand in the prompt."""
        return self.hidden_size

    @property
    def embeddings(self) -> Tensor:
        """The token embedding matrix, (V, H)."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens as the model itself makes them."""
        vectors: Tensor = self.model.get_input_embeddings()(tokens)
        return vectors

    # ------------------------------------------------------------------------------------ prompts

    def frame(self, *, picture: bool) -> tuple[list[int], list[int]]:
        """Token ids before and after an item's words; the picture's tokens come in between."""
        if picture not in self._frames:
            instruction = WITH_IMAGE if picture else WITHOUT_IMAGE
            encode = self.text_tokenizer
            after = encode(instruction, add_special_tokens=False)["input_ids"]
            before, behind = _special_tokens(encode)
            self._frames[picture] = (before, [*after, *behind])
        before, after = self._frames[picture]
        return list(before), list(after)

    def picture_marks(self) -> tuple[list[int], int, list[int]]:
        """Token ids before a picture, of one picture token, and after a picture."""
        raise NotImplementedError

    def layout(self, words: npt.NDArray[np.int64], grid: tuple[int, int]) -> Prompt:
        """Lay out one item: `grid` is height and width in picture tokens, zeros for no picture."""
        shown = grid[0] * grid[1]
        before, after = self.frame(picture=shown > 0)
        lead, tail = before, [*words.tolist(), *after]
        pad = 0
        if shown:
            start, pad, end = self.picture_marks()
            lead, tail = [*before, *start], [*end, *tail]
        tokens = np.array([*lead, *[pad] * shown, *tail], dtype=np.int64)
        picture = slice(len(lead), len(lead) + shown)
        positions, next_position = self.positions(len(tokens), picture, grid)
        return Prompt(tokens, positions, picture, next_position)

    def positions(
        self, length: int, picture: slice, grid: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Positions of a prompt's tokens, (3, S), and that of what follows: by default in order."""
        return np.broadcast_to(np.arange(length), (3, length)).copy(), length

    def run(self, embedded: Tensor, features: Tensor, prompts: "Read") -> Tensor:
        """Hidden states of laid-out prompts. Shapes: (B, S, H), (M, F) → (B, S, H)."""
        hidden: Tensor = self.language_model(
            inputs_embeds=embedded, attention_mask=prompts.mask, use_cache=False
        ).last_hidden_state
        return hidden

    def run_at(self, embedded: Tensor, features: Tensor, prompts: "Read", places: Tensor) -> Tensor:
        """The same for some places alone, where no gradient is wanted; families may do less for it.

        Shapes: (B, S, H), (M, F), places (B, L) → (B, L, H).
        """
        return at_places(self.run(embedded, features, prompts), places)

    # ----------------------------------------------------------------------------------- pictures

    def process(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Pixels as the model wants them; touches no weights, so it can run in other processes."""
        return dict(self.picture_processor(images=list(pictures), return_tensors="pt"))

    def grids(self, processed: dict[str, Tensor]) -> npt.NDArray[np.int64]:
        """Height and width in picture tokens of processed pictures: (pictures, 2)."""
        raise NotImplementedError

    def picture_features(self, processed: dict[str, Tensor]) -> Tensor:
        """What the frozen part makes of processed pictures, one after the other: (M, F)."""
        raise NotImplementedError

    def count_tokens(self, height: int, width: int) -> int:
        """Picture tokens that a picture of so many pixels becomes."""
        raise NotImplementedError

    def _pad_token(self) -> int:
        """A token for places that nothing reads."""
        for token in (self.text_tokenizer.pad_token_id, self.text_tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


class Read(NamedTuple):
    """What `run` needs to know of the prompts, beside their embeddings."""

    positions: Tensor  # (3, B, S)
    picture: Tensor  # (B, S), bool, where picture features stand
    mask: Tensor | None  # (B, S), int64, 0 on padding; None where nothing can see padding


def at_places(hidden: Tensor, places: Tensor) -> Tensor:
    """Some places of each item. Shapes: (B, S, H), (B, L) → (B, L, H)."""
    return hidden[torch.arange(len(places), device=hidden.device)[:, None], places]


def token_id(text_tokenizer: Any, token: str) -> int:
    """The id of a special token.

    Raises:
        BadConfig: the vocabulary does not have it.
    """
    found = text_tokenizer.convert_tokens_to_ids(token)
    if found is None or found == text_tokenizer.unk_token_id:
        raise BadConfig(
            f"the text tokenizer has no token {token!r}, which marks pictures in this family; "
            "the tokenizer's files are not those of the model"
        )
    return int(found)


def _special_tokens(text_tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after any text, such as [CLS] and [SEP]."""
    plain = text_tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = text_tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return list(whole[:start]), list(whole[start + len(plain) :])
    return [], []


def joined(parts: Any, width: int) -> Tensor:
    """Features of several pictures, whether a model gives them as one tensor or one by one."""
    return torch.cat([part.reshape(-1, width) for part in parts])
