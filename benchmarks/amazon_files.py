"""Write files in the schema of Amazon Reviews 2023, of any size, the same for the same seed.

Words follow Zipf's law; a few users and items have most of the reviews; texts hold now and then
what real ones hold: HTML, entities, emoji, line breaks, double spaces.
"""

import json
from pathlib import Path

import numpy as np

from utgrec import storage

CATEGORY = "Musical_Instruments"
WORDS = 20_000
CHUNK = 50_000
POOL = 20_000  # different texts of each kind; lines share them
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
    return f"B{(number * 2_654_435_761) % 16**9:09X}"


def user_id(number: int) -> str:
    """An id of 28 letters and digits."""
    return f"AE{(number * 0x9E3779B97F4A7C15) % 16**16:Q>26X}"


def _write_reviews(path: Path, count: int, items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Every user has a number of reviews of their own, most of them one, as in the real files.
    users = np.repeat(np.arange(count), np.minimum(random.zipf(2.5, count), 400))[:count]
    random.shuffle(users)
    taken = (items * random.random(count) ** 2.2).astype(np.int64)
    titles, texts = pool(random, 4), pool(random, 55)
    with open(path, "w", encoding="utf-8") as stream:
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            title, text = (random.integers(0, POOL, size).tolist() for _ in range(2))
            times = random.integers(1_000_000_000_000, 1_690_000_000_000, size).tolist()
            stars, votes = (random.integers(0, 5, size).tolist() for _ in range(2))
            lines = []
            for n in range(size):
                item = item_id(int(taken[first + n]))
                lines.append(
                    f'{{"rating": {stars[n] + 1}.0, "title": {titles[title[n]]}, '
                    f'"text": {texts[text[n]]}, "images": [], "asin": "{item}", '
                    f'"parent_asin": "{item}", "user_id": "{user_id(int(users[first + n]))}", '
                    f'"timestamp": {times[n]}, "helpful_vote": {votes[n]}, '
                    f'"verified_purchase": {"true" if votes[n] % 2 else "false"}}}\n'
                )
            stream.write("".join(lines))


def _write_metadata(path: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed + 1)
    titles, stores, words = pool(random, 12), pool(random, 2), pool(random, 14)
    with open(path, "w", encoding="utf-8") as stream:
        for number in random.permutation(count).tolist():
            picks = random.integers(0, POOL, 10).tolist()
            features = ", ".join(words[pick] for pick in picks[: number % 6])
            description = ", ".join(words[pick] for pick in picks[5 : 5 + number % 3])
            images = json.dumps([_image(number, place) for place in range(1 + number % 6)])
            price = "null" if number % 3 else f"{number % 900}.99"
            stream.write(
                f'{{"main_category": "Musical Instruments", "title": {titles[picks[8]]}, '
                f'"average_rating": 4.5, "rating_number": {number % 1000}, '
                f'"features": [{features}], "description": [{description}], "price": {price}, '
                f'"images": {images}, "videos": [{{"title": "A look", "url": '
                f'"https://x.test/v", "user_id": ""}}], "store": {stores[picks[9]]}, '
                f'"categories": ["Musical Instruments", "Part {number % 40}", "Strings"], '
                f'"details": {{"Item Weight": "1.2 pounds", "Item model number": "{number}"}}, '
                f'"parent_asin": "{item_id(number)}", "bought_together": null}}\n'
            )


def _image(number: int, place: int) -> dict[str, str | None]:
    root = f"https://m.media-amazon.com/images/I/{number:09d}{place}"
    return {
        "thumb": f"{root}._SX38_.jpg",
        "large": f"{root}.jpg",
        "variant": "MAIN" if place == number % 2 else f"PT{place:02d}",
        "hi_res": f"{root}._SL1500_.jpg" if place % 2 else None,
    }


def pool(random: np.random.Generator, length: int) -> list[str]:
    """POOL texts of `length` words on average, as JSON."""
    vocabulary = _vocabulary()
    lengths = 1 + random.poisson(length - 1, POOL)
    picks = np.minimum(random.zipf(1.3, int(lengths.sum())), WORDS) - 1
    spiced = random.random(POOL) < 0.15
    ends = np.cumsum(lengths)
    texts = []
    for n in range(POOL):
        words = " ".join(vocabulary[pick] for pick in picks[ends[n] - lengths[n] : ends[n]])
        texts.append(json.dumps(words + SPICE[n % len(SPICE)] + "good" if spiced[n] else words))
    return texts


def _vocabulary() -> list[str]:
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    share = 1 / np.arange(1, 27)
    sizes = 2 + random.poisson(4, WORDS)
    picks = random.choice(letters, int(sizes.sum()), p=share / share.sum())
    ends = np.cumsum(sizes)
    return ["".join(picks[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
