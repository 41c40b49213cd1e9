"""What is known of an item before anything is learned: its contents and the company it keeps.

Contents are the means of an item's word vectors and of its picture features. Company says in the
same space what is taken beside it (`company.py`). Both come in closed form, so states that begin
with them already tell items apart and hold together what belongs together; training then changes
what its losses ask for, instead of finding all of it again from a random start.

Of wide backbones, the leading 256 directions of words and of pictures are enough to tell items
apart, and a million items then take 4 GB instead of 25.

Shapes: N, B items · H backbone width · W = min(H, 256) · C = 2W contents · F = 2C features ·
R directions of a graph · L codes per item · D code dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.tokenizer.company import CompanyConfig, Floats

MOST_DIRECTIONS = 256
ROWS_AT_ONCE = 65_536


def summary_width(hidden_size: int) -> int:
    """Width of an item's features, F, for a backbone of width H."""
    return 4 * min(hidden_size, MOST_DIRECTIONS)


class ItemFeatures(nn.Module):
    """Contents and company → vectors → what they add to code queries and to states."""

    words: Tensor
    lens: Tensor | None
    mean: Tensor
    whiten: Tensor
    centre: Tensor
    components: Tensor

    def __init__(
        self, config: CompanyConfig, embeddings: Tensor, code_length: int, dim: int
    ) -> None:
        """`embeddings` (V, H) are the backbone's words before any training.

        A copy of them is kept where they are trained; frozen ones are those of the base model, and
        nothing of them is saved again.
        """
        super().__init__()
        self.config = config
        width = embeddings.shape[1]
        self.length, self.contents = code_length, 2 * min(width, MOST_DIRECTIONS)
        # What takes words and pictures to their leading directions; None keeps all of them.
        lens = torch.eye(width)[:, :MOST_DIRECTIONS].repeat(2, 1, 1)  # (2, H, W)
        self.register_buffer("lens", lens if width > MOST_DIRECTIONS else None)
        if embeddings.requires_grad:
            self.register_buffer("words", embeddings.detach().clone())
        else:
            self.words = embeddings.detach()
        self.register_buffer("mean", torch.zeros(self.contents))
        self.register_buffer("whiten", torch.eye(self.contents))
        self.register_buffer("centre", torch.zeros(2 * self.contents))
        self.to_queries = nn.Linear(2 * self.contents, code_length * width, bias=False)
        self.register_buffer("components", torch.zeros(2 * self.contents, dim))
        # As loud as a word when training begins, for features of unit length.
        scale = loudness(embeddings)
        nn.init.normal_(self.to_queries.weight, std=scale / 2**0.5)

    @torch.no_grad()
    def fit_lens(self, contents: Tensor) -> None:
        """Find the leading directions of words and of pictures in those of some items: (n, 2H)."""
        if self.lens is None:
            return
        for number, part in enumerate(contents.chunk(2, dim=1)):
            present = part[part.any(dim=1)]
            if len(present) > 1:
                _, directions = torch.linalg.eigh(_moments(present)[1])  # ascending
                self.lens[number].copy_(_signed(directions.flip(1)[:, :MOST_DIRECTIONS]))

    @torch.no_grad()
    def fit_contents(self, contents: Tensor) -> None:
        """Learn the mean of contents, and how loud each of their directions is. Shape: (N, C)."""
        mean, covariance = _moments(contents)
        self.mean.copy_(mean)
        variances, vectors = torch.linalg.eigh(covariance)
        # Directions far below the loudest are noise, or are not there at all.
        floor = 1e-3 * float(variances.max().clamp(min=1e-12))
        self.whiten.copy_(vectors * (variances.clamp(min=0) + floor).rsqrt() @ vectors.T)

    @torch.no_grad()
    def fit_states(self, vectors: Tensor) -> None:
        """Take the principal components of features as what they add to states. Shape: (N, F).

        They stay fixed: trained, they would move much faster than anything else.
        """
        mean, covariance = _moments(vectors)
        self.centre.copy_(mean)
        _, directions = torch.linalg.eigh(covariance)  # ascending
        kept = _signed(directions.flip(1)[:, : self.components.shape[1]])  # (F, D or fewer)
        self.components.zero_()
        self.components[:, : kept.shape[1]] = kept

    @torch.no_grad()
    def vectors(self, contents: Tensor, directions: Floats) -> Tensor:
        """Features of one shop's items. Shapes: contents (N, C), directions (N, R) → (N, F).

        The graph's directions mean nothing outside their shop. They are turned, all together and
        without a change of distances, to agree as well as they can with the contents of the items
        they belong to (orthogonal Procrustes). So company is told in contents, which shops share.
        """
        device = contents.device
        centred = contents - self.mean.to(device)
        words, picture = centred.chunk(2, dim=1)
        words_present, picture_present = (part.any(dim=1) for part in contents.chunk(2, dim=1))
        own = torch.cat(
            [
                F.normalize(words, dim=1) * words_present[:, None],
                F.normalize(picture, dim=1) * picture_present[:, None],
            ],
            dim=1,
        )
        company = torch.zeros_like(contents)
        if directions.shape[1]:
            basis = torch.from_numpy(directions).float()
            left, _, right = torch.linalg.svd(
                basis.T @ (centred @ self.whiten.to(device)), full_matrices=False
            )
            company = F.normalize(basis @ (left @ right), dim=1)
        return torch.cat([F.normalize(own, dim=1), company], dim=1)

    def hide_company(self, vectors: Tensor) -> Tensor:
        """In training, the features of some items as if nobody had taken them yet."""
        if not self.training or not self.config.dropout:
            return vectors
        kept = torch.rand(len(vectors), 1, device=vectors.device) >= self.config.dropout
        own, company = vectors.chunk(2, dim=1)
        return torch.cat([own, company * kept], dim=1)

    def queries(self, vectors: Tensor) -> Tensor:
        """What features add to each code query. Shapes: (B, F) → (B, L, H)."""
        added: Tensor = self.to_queries(vectors)
        return added.view(len(vectors), self.length, -1)

    def states(self, vectors: Tensor) -> Tensor:
        """What features add to every state of an item. Shapes: (B, F) → (B, 1, D)."""
        added: Tensor = (vectors - self.centre).float() @ self.components
        return added[:, None]


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance in float64, a part of the rows at a time. Shape: (N, W)."""
    mean = torch.zeros(values.shape[1], dtype=torch.float64)
    covariance = torch.zeros(values.shape[1], values.shape[1], dtype=torch.float64)
    for part in torch.split(values, ROWS_AT_ONCE):
        mean += part.double().sum(dim=0)
    mean /= len(values)
    for part in torch.split(values, ROWS_AT_ONCE):
        centred = part.double() - mean
        covariance += centred.T @ centred
    return mean, covariance / len(values)


def _signed(directions: Tensor) -> Tensor:
    """An eigenvector's sign is arbitrary; the largest entry is made positive, so runs agree."""
    largest = directions.abs().argmax(dim=0)
    return directions * directions[largest, torch.arange(directions.shape[1])].sign()


def loudness(embeddings: Tensor) -> float:
    """Standard deviation of word vectors, from at most 8192 of them. Shape: (V, H)."""
    sample = embeddings.detach()[:: max(1, len(embeddings) // 8192)]
    return float(sample.float().std())
