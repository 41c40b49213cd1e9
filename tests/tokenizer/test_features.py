"""Features: contents and company in one closed form, the same in every shop."""

import numpy as np
import torch
import torch.nn.functional as F

from utgrec.data.split import Split
from utgrec.tokenizer.company import CompanyConfig, company_directions
from utgrec.tokenizer.features import ItemFeatures, _moments

WIDTH, LENGTH, DIM = 5, 3, 8
NOBODY = np.zeros((20, 0))


def make_features(**changes) -> ItemFeatures:
    torch.manual_seed(0)
    config = CompanyConfig(**{"rank": 4, "window": 2, "dropout": 0.0, **changes})
    return ItemFeatures(config, torch.randn(30, WIDTH), LENGTH, DIM)


def draw_contents(items: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.randn(items, 2 * WIDTH, generator=torch.Generator().manual_seed(seed)) + 2


def directions_of(items: int = 20, seed: int = 0) -> np.ndarray:
    """Users take from the even or from the odd items; the last two are never taken."""
    rng = np.random.default_rng(seed)
    histories = [2 * rng.integers(0, items // 2 - 1, 6) + user % 2 for user in range(60)]
    split = Split(
        offsets=6 * np.arange(61),
        train=np.concatenate(histories).astype(np.int32),
        valid=np.zeros(60, np.int32),
        test=np.zeros(60, np.int32),
    )
    return company_directions(split, items, CompanyConfig(rank=4, window=2))


def test_company_keeps_the_distances_of_the_graph() -> None:
    features, contents, directions = make_features(), draw_contents(), directions_of()
    features.fit_contents(contents)
    company = features.vectors(contents, directions).chunk(2, dim=1)[1]
    basis = torch.from_numpy(directions).float()
    torch.testing.assert_close(company @ company.T, basis @ basis.T, atol=1e-4, rtol=1e-4)


def test_company_is_told_in_contents_whatever_the_graph_calls_its_directions() -> None:
    """Another shop with the same items finds the same directions turned: nothing changes."""
    features, contents, directions = make_features(), draw_contents(), directions_of()
    features.fit_contents(contents)
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(directions.shape[1],) * 2))[0]
    one, two = (features.vectors(contents, part) for part in (directions, directions @ turn))
    torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_without_company_only_contents_are_left() -> None:
    features, contents = make_features(), draw_contents()
    features.fit_contents(contents)
    own, company = features.vectors(contents, NOBODY).chunk(2, dim=1)
    assert torch.equal(company, torch.zeros_like(company))
    torch.testing.assert_close(own.norm(dim=1), torch.ones(20))
    taken = features.vectors(contents, directions_of())
    torch.testing.assert_close(taken.chunk(2, dim=1)[0], own)
    assert torch.equal(taken[18:].chunk(2, dim=1)[1], torch.zeros(2, 2 * WIDTH))


def test_an_item_without_picture_or_words_has_zeros_there() -> None:
    features, contents = make_features(), draw_contents()
    features.fit_contents(contents)
    contents[3, WIDTH:] = 0
    contents[4, :WIDTH] = 0
    contents[5] = 0
    own = features.vectors(contents, NOBODY)
    assert not own[3, WIDTH:].any() and own[3, :WIDTH].any()
    assert not own[4, :WIDTH].any() and own[4, WIDTH : 2 * WIDTH].any()
    assert not own[5].any()


def test_states_are_principal_components() -> None:
    features, contents = make_features(), draw_contents(200)
    features.fit_contents(contents)
    vectors = features.vectors(contents, np.zeros((200, 0)))
    features.fit_states(vectors)
    states = features.states(vectors)[:, 0]
    torch.testing.assert_close(states.mean(dim=0), torch.zeros(DIM), atol=1e-5, rtol=0)
    covariance = states.T @ states
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 1e-3 * covariance.diagonal().max()
    # Eight of ten directions keep most of all that tells items apart.
    centred = vectors - vectors.mean(dim=0)
    assert states.square().sum() > 0.85 * centred.square().sum()


def test_company_is_hidden_from_a_share_of_items_in_training_only() -> None:
    features = make_features(dropout=0.25).train()
    vectors = F.normalize(torch.ones(4000, 4 * WIDTH), dim=1)
    torch.manual_seed(0)
    own, company = features.hide_company(vectors).chunk(2, dim=1)
    assert bool(own.all())
    assert abs(float((company == 0).all(dim=1).float().mean()) - 0.25) < 0.03
    assert torch.equal(features.eval().hide_company(vectors), vectors)


def test_nothing_known_adds_nothing_to_queries() -> None:
    features = make_features()
    added = features.queries(torch.zeros(2, 4 * WIDTH))
    assert torch.equal(added, torch.zeros(2, LENGTH, WIDTH))


def test_a_wide_backbones_leading_directions_keep_the_distances(monkeypatch) -> None:
    """Contents that lie in few directions lose nothing, and the rest of their width is not kept."""
    monkeypatch.setattr("utgrec.tokenizer.features.MOST_DIRECTIONS", 6)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    features = ItemFeatures(CompanyConfig(rank=4), torch.randn(30, 40), LENGTH, DIM)
    narrow = torch.randn(25, 2, 5, generator=generator)
    turn = torch.randn(2, 5, 40, generator=generator)
    contents = torch.einsum("nhr,hrw->nhw", narrow, turn)
    contents[3, 1] = 0  # an item without picture
    features.fit_lens(contents.flatten(1))
    assert features.lens is not None and features.contents == 12
    seen = torch.einsum("nhw,hwr->nhr", contents, features.lens)
    # The mean may lie outside, so differences are compared: they are all that counts.
    for half in (0, 1):
        present = contents[:, half].any(dim=1)
        torch.testing.assert_close(
            torch.cdist(seen[present, half], seen[present, half]),
            torch.cdist(contents[present, half], contents[present, half]),
            atol=1e-3,
            rtol=1e-3,
        )
    assert (seen[3, 1] == 0).all()


def test_moments_by_parts_are_those_of_all_rows(monkeypatch) -> None:
    monkeypatch.setattr("utgrec.tokenizer.features.ROWS_AT_ONCE", 7)
    values = draw_contents(50)
    mean, covariance = _moments(values)
    torch.testing.assert_close(mean, values.double().mean(dim=0))
    torch.testing.assert_close(covariance, torch.cov(values.double().T, correction=0))
