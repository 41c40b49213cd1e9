"""Blocks of whole lines: nothing lost or doubled, however a file is cut; broken files are named."""

import gzip
import hashlib
import random
import threading

import pytest

from utgrec.data import blocks
from utgrec.data.blocks import BlockReader, Range, ranges
from utgrec.errors import BadTable


def some_lines(seed: int, count: int = 60) -> bytes:
    rng = random.Random(seed)
    lines = [bytes(rng.choices(b"abc\xc3\xa9 ", k=rng.randint(0, 40))) for _ in range(count)]
    return b"\n".join(lines) + (b"\n" if seed % 2 else b"x")


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_blocks_put_together_are_the_file(tmp_path, size, ending):
    for seed in range(4):
        data, path = some_lines(seed), tmp_path / f"{seed}.{ending}"
        stored = gzip.compress(data) if ending.endswith(".gz") else data
        path.write_bytes(stored)
        reader = BlockReader(path, block_bytes=size)
        found = list(reader)
        assert b"".join(block.data for block in found) == data
        assert reader.lines == len(data.splitlines()) == sum(block.lines for block in found)
        assert [block.begins for block in found] == [True] + [False] * (len(found) - 1)
        assert found[-1].ends_open == (not data.endswith(b"\n"))
        at = 1
        for block in found:
            assert block.first_line == at
            at += block.lines
        assert reader.digest == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("size", [1, 3, 50, 333])
def test_shares_of_a_file_hold_every_line_once(tmp_path, size):
    for seed in range(4):
        data, path = some_lines(seed), tmp_path / f"{seed}.txt"
        path.write_bytes(data)
        shares = ranges(path, size)
        assert (shares[0].start, shares[-1].end) == (0, len(data))
        read = [b"".join(b.data for b in BlockReader(path, part=share)) for share in shares]
        assert b"".join(read) == data
        assert all(part.endswith(b"\n") for part in list(filter(None, read))[:-1])


def test_a_zipped_file_has_one_share(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\nb\n" * 100))
    assert ranges(path, 10) == [Range(0, path.stat().st_size)]


def test_progress_counts_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(some_lines(1))
    told: list[int] = []
    list(BlockReader(path, block_bytes=100, told=told.append))
    assert told == sorted(told) and told[-1] == path.stat().st_size


def test_a_mark_at_the_start_is_no_text(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfa\n")
    assert [block.data for block in BlockReader(path)] == [b"a\n"]
    path.write_bytes("a\n".encode("utf-16"))
    with pytest.raises(BadTable, match="UTF-16"):
        list(BlockReader(path))


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip", "junk behind"])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    data = bytearray(gzip.compress(some_lines(1, 3000)))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "changed":
        data[len(data) // 2] ^= 255
    elif damage == "junk behind":
        data += b"junk"
    else:
        data = bytearray(b"plain text\n")
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(BadTable, match=r"x\.jsonl\.gz is not a whole gzip file"):
        list(BlockReader(path, block_bytes=4096))


def test_a_line_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "LONGEST_LINE", 1000)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x" * 10_000_000))
    with pytest.raises(BadTable, match="line 2 has more than 1,000 bytes"):
        list(BlockReader(path, block_bytes=100))


def test_a_reader_that_is_left_ends_its_thread(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\n" * 1000)
    for _ in BlockReader(path, block_bytes=10):
        break
    assert not [t for t in threading.enumerate() if t.name == "read x.txt"]
