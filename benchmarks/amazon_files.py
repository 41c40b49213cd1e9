"""Write files in the schema of Amazon Reviews 2023, of any size, the same for the same seed.

Words follow Zipf's law; a few users and items have most of the reviews; texts hold now and then
what real ones hold: HTML, entities, emoji, line breaks, double spaces.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utgrec import storage

CATEGORY = "Musical_Instruments"
WORDS = 20_000
CHUNK = 50_000
SPICE = (" <br />", " &amp; ", "\n\n", "  ", " 😀", " &#34;best&#34; ", " it's ", " — ")


def write_files(folder: Path, reviews: int, items: int, seed: int = 7) -> Path:
    """The files of one category in `folder`/REVIEWS-ITEMS, made once."""
    out = folder / f"{reviews}-{items}"
    if not out.exists():
        with storage.new_folder(out) as partial:
            _write_metadata(partial / f"meta_{CATEGORY}.jsonl", items, seed)
            _write_reviews(partial / f"{CATEGORY}.jsonl", reviews, items, seed)
    return out


def item_id(number: int) -> str:
    """An id of ten letters and digits."""
    return f"B{np.base_repr((number * 2_654_435_761) % 36**9, 36).rjust(9, '0')}"


def user_id(number: int) -> str:
    """An id of 28 letters and digits."""
    return f"AE{np.base_repr((number * 0x9E3779B97F4A7C15) % 36**12, 36).rjust(26, 'Q')}"


def _write_reviews(path: Path, count: int, items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Every user has a number of reviews of their own, most of them one, as in the real files.
    users = np.repeat(np.arange(count), np.minimum(random.zipf(2.5, count), 400))[:count]
    random.shuffle(users)
    taken = (items * random.random(count) ** 2.2).astype(np.int64)
    with open(path, "w", encoding="utf-8") as stream:
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            titles, texts = _texts(random, size, 4), _texts(random, size, 55)
            times = random.integers(1_000_000_000_000, 1_690_000_000_000, size)
            stars, votes = random.integers(1, 6, size), random.integers(0, 5, size)
            for n in range(size):
                item = item_id(int(taken[first + n]))
                review = {
                    "rating": float(stars[n]),
                    "title": next(titles),
                    "text": next(texts),
                    "images": [],
                    "asin": item,
                    "parent_asin": item,
                    "user_id": user_id(int(users[first + n])),
                    "timestamp": int(times[n]),
                    "helpful_vote": int(votes[n]),
                    "verified_purchase": bool(votes[n] % 2),
                }
                stream.write(json.dumps(review) + "\n")


def _write_metadata(path: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed + 1)
    order = random.permutation(count)
    with open(path, "w", encoding="utf-8") as stream:
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            titles, stores = _texts(random, size, 12), _texts(random, size, 2)
            lines = _texts(random, size * 8, 14)
            for n in range(size):
                number = int(order[first + n])
                features = [next(lines) for _ in range(number % 6)]
                description = [next(lines) for _ in range(number % 3)]
                item = {
                    "main_category": "Musical Instruments",
                    "title": next(titles),
                    "average_rating": 4.5,
                    "rating_number": number % 1000,
                    "features": features,
                    "description": description,
                    "price": None if number % 3 else round(number % 900 + 0.99, 2),
                    "images": [_image(number, place) for place in range(1 + number % 6)],
                    "videos": [{"title": "A look", "url": "https://x.test/v", "user_id": ""}],
                    "store": next(stores),
                    "categories": ["Musical Instruments", f"Part {number % 40}", "Strings"],
                    "details": {"Item Weight": "1.2 pounds", "Item model number": str(number)},
                    "parent_asin": item_id(number),
                    "bought_together": None,
                }
                stream.write(json.dumps(item) + "\n")


def _image(number: int, place: int) -> dict[str, str | None]:
    root = f"https://m.media-amazon.com/images/I/{number:09d}{place}"
    return {
        "thumb": f"{root}._SX38_.jpg",
        "large": f"{root}.jpg",
        "variant": "MAIN" if place == number % 2 else f"PT{place:02d}",
        "hi_res": f"{root}._SL1500_.jpg" if place % 2 else None,
    }


def _texts(random: np.random.Generator, count: int, length: int) -> Iterator[str]:
    """`count` texts of `length` words on average."""
    vocabulary = _vocabulary()
    lengths = 1 + random.poisson(length - 1, count)
    picks = np.minimum(random.zipf(1.3, int(lengths.sum())), WORDS) - 1
    spiced = random.random(count) < 0.15
    ends = np.cumsum(lengths)
    for n in range(count):
        words = " ".join(vocabulary[pick] for pick in picks[ends[n] - lengths[n] : ends[n]])
        yield words + SPICE[n % len(SPICE)] + "good" if spiced[n] else words


def _vocabulary() -> list[str]:
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    share = 1 / np.arange(1, 27)
    sizes = 2 + random.poisson(4, WORDS)
    picks = random.choice(letters, int(sizes.sum()), p=share / share.sum())
    ends = np.cumsum(sizes)
    return ["".join(picks[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
