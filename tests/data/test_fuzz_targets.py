"""The fuzz targets on what breaks parsers; `make fuzz` looks for more."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from targets import TARGETS, Target

from utgrec.data import table_parts, text_tables


def _damaged(data: bytes) -> list[bytes]:
    """A seed cut off, with bytes changed, doubled, without line ends."""
    half = len(data) // 2
    return [
        data,
        b"",
        data[:half],
        data[:-1],
        data[:half] + b"\xff\xfe" + data[half:],
        data[:half] + b"\x00" + data[half + 1 :],
        data + data,
        data.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + data,
        data.replace(b'"', b""),
    ]


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds(tmp_path: Path, name: str) -> None:
    inputs = [bad for seed in TARGETS[name].seeds for bad in _damaged(seed)]
    for number, data in enumerate(inputs):
        folder = tmp_path / str(number)
        folder.mkdir()
        TARGETS[name].run(data, folder)


SIGNS = [b"{", b"}", b"[", b'"', b",", b"\t", b"\n", b"\r\n", b":", b" ", b"\x00", b"\xff"]
WORDS = [b"a", b"7", b"-1e9", b"NaN", b"null", b"user_id", b"item_id", b"timestamp", b":token"]
PIECES = st.sampled_from([*SIGNS, *WORDS, b"\xef\xbb\xbf"])
CHEAP = ("csv", "jsonl", "values", "mapping", "sem_ids")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CHEAP), st.lists(PIECES, max_size=20).map(b"".join))
def test_bytes_drawn_at_random(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    TARGETS[name].run(data, tmp_path_factory.mktemp("fuzz"))


def test_a_planted_defect_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path, kind: str) -> list[str]:
        return path.read_bytes().splitlines()[0].decode().split(",")

    for module in (table_parts, text_tables):
        monkeypatch.setattr(module, "header_of", careless)
    target: Target = TARGETS["csv"]
    with pytest.raises((UnicodeDecodeError, IndexError)):
        for number, data in enumerate(_damaged(target.seeds[0])):
            folder = tmp_path / str(number)
            folder.mkdir()
            target.run(data, folder)
