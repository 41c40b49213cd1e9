"""The recommender's token ids: the one place where codes become tokens and tokens become codes.

Layout: 0 padding (and the decoder's start) · 1 end of history · root codes · leaf codes, shared by
positions 2 … L · domain tokens, with room for domains met later · a token for any domain.

Shapes: L codes per item · N any leading shape.
"""

import dataclasses

import torch
from torch import Tensor

from utgrec.config import require
from utgrec.errors import InputError

PAD = 0
END = 1
_SPECIAL = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Maps codes, counted within their own codebook, to token ids and back."""

    root_size: int
    """Entries of the codebook of position 1."""
    leaf_size: int
    """Entries of the codebook of positions 2 … L."""
    code_length: int
    """Codes per item, L."""
    domains: tuple[str, ...]
    """Names of the domains met so far, in the order of their tokens."""
    domain_slots: int = 32
    """Domain tokens reserved; the last one names no domain, the others are for one domain each."""

    def __post_init__(self) -> None:
        require(
            min(self.root_size, self.leaf_size, self.code_length) >= 1,
            f"codebook sizes and code length must be at least 1, got {self}",
        )
        require(
            len(set(self.domains)) == len(self.domains) < self.domain_slots,
            "domains must be distinct and fewer than domain_slots, since one slot stands for any "
            f"domain, got {', '.join(self.domains)} with {self.domain_slots} slots",
        )

    @property
    def size(self) -> int:
        """Number of token ids."""
        return _SPECIAL + self.root_size + self.leaf_size + self.domain_slots

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Entries of the codebook of each position, (L,)."""
        return (self.root_size, *[self.leaf_size] * (self.code_length - 1))

    @property
    def code_offsets(self) -> tuple[int, ...]:
        """Token id of code 0 at each position, (L,)."""
        return (_SPECIAL, *[_SPECIAL + self.root_size] * (self.code_length - 1))

    @property
    def first_domain(self) -> int:
        """The token of the first domain; all from here on are domain tokens."""
        return self.size - self.domain_slots

    @property
    def any_domain(self) -> int:
        """The token that stands for any domain, also for one that was never trained on."""
        return self.size - 1

    def with_domain(self, domain: str) -> "Vocabulary":
        """The same vocabulary, which also knows `domain`; no token changes its meaning."""
        if domain in self.domains:
            return self
        return dataclasses.replace(self, domains=(*self.domains, domain))

    def to_tokens(self, codes: Tensor) -> Tensor:
        """Token ids of codes. Shapes: (N, L) → (N, L), int64.

        Raises:
            InputError: a code outside its codebook.
        """
        sizes = torch.tensor(self.code_sizes, device=codes.device)
        codes = codes.long()
        if codes.shape[-1] != self.code_length or bool(((codes < 0) | (codes >= sizes)).any()):
            raise InputError(
                f"codes of shape {tuple(codes.shape)} must have {self.code_length} positions with "
                f"sizes {self.code_sizes}; they come from another tokenizer: assign codes again"
            )
        return codes + torch.tensor(self.code_offsets, device=codes.device)

    def to_codes(self, tokens: Tensor) -> Tensor:
        """Codes of token ids, the inverse of `to_tokens`. Shapes: (N, L) → (N, L), int64."""
        return tokens - torch.tensor(self.code_offsets, device=tokens.device)

    def domain_token(self, domain: str) -> int:
        """The token that names a domain.

        Raises:
            InputError: the recommender was not trained on it.
        """
        if domain not in self.domains:
            raise InputError(
                f"domain {domain!r} is unknown here; known: {', '.join(self.domains) or 'none'}; "
                "train or adapt the recommender on it first"
            )
        return self.first_domain + self.domains.index(domain)
