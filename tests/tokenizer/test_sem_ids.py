"""Codes go out as token numbers with offsets, and come in again as the same codes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.errors import BadConfig, InputError, SettingsMismatch
from utgrec.tokenizer.codes import read_codes
from utgrec.tokenizer.sem_ids import import_sem_ids, read_sem_ids, sem_ids_of

SIZES = (4, 8, 8)


def small_domain(folder: Path, name: str = "small", items: int = 30) -> Domain:
    users = np.repeat(np.arange(5), 6)
    with storage.new_folder(folder) as work:
        write_domain(
            work,
            name=name,
            items=pa.table(
                {
                    "item_id": [f"i{n}" for n in range(items)],
                    "title": pa.nulls(items, pa.string()),
                    "text": ["x"] * items,
                    "image": pa.nulls(items, pa.string()),
                }
            ),
            user_ids=[f"u{n}" for n in range(5)],
            interactions=pa.table(
                {
                    "user": users.astype(np.int32),
                    "item": np.arange(30, dtype=np.int32),
                    "timestamp": np.arange(30),
                }
            ),
            config={},
            inputs={},
            facts={},
        )
    return Domain.open(folder)


def codes_file(path: Path, count: int = 30) -> np.ndarray:
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.choice(4 * 8 * 8, count, replace=False), SIZES), axis=1)
    tokens = (codes + np.array([0, 4, 4])).tolist()
    path.write_text(json.dumps({f"i{n}": row for n, row in enumerate(tokens)}))
    return codes


def test_codes_in_and_out(tmp_path: Path) -> None:
    domain = small_domain(tmp_path / "d")
    codes = codes_file(tmp_path / "a.sem_ids")
    manifest = import_sem_ids(tmp_path / "a.sem_ids", domain, tmp_path / "codes", SIZES)
    found = read_codes(tmp_path / "codes")
    np.testing.assert_array_equal(found.codes, codes)
    assert found.codes.dtype == np.int16 and manifest.facts["sizes"] == list(SIZES)
    assert sem_ids_of(tmp_path / "codes", domain) == json.loads(
        (tmp_path / "a.sem_ids").read_text()
    )
    with pytest.raises(SettingsMismatch, match="another domain"):
        sem_ids_of(tmp_path / "codes", small_domain(tmp_path / "e", "other"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a JSON list"),
        ("{", "not valid JSON"),
        ('{"a": [0, 4, 4]}', "no codes for 1 of 2 items, 'b' first"),
        ('{"a": [0, 4, 4], "b": [0, 4]}', "codes of 'b'.*not 3 numbers"),
        ('{"a": [0, 4, 4], "b": [0, 4, true]}', "not 3 numbers"),
        ('{"a": [0, 4, 4], "b": [0, 3, 4]}', "outside codebooks of 4, 8, 8"),
        ('{"a": [0, 4, 4], "b": [0, 4, 12]}', "outside codebooks"),
        ('{"a": [0, 4, 4], "b": [0, 4, 99999999999999999999]}', "is no code"),
        ('{"a": [0, 4, 4], "b": [0, 4, 4]}', "1 of 2 items have codes that another"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.sem_ids").write_text(text)
    with pytest.raises(InputError, match=message):
        read_sem_ids(tmp_path / "x.sem_ids", ["a", "b"], SIZES)
    with pytest.raises(InputError, match="is no file"):
        read_sem_ids(tmp_path / "none.sem_ids", ["a"], SIZES)
    with pytest.raises(BadConfig, match="equal leaves"):
        import_sem_ids(
            tmp_path / "x.sem_ids", small_domain(tmp_path / "d"), tmp_path / "c", (4, 8, 9)
        )
