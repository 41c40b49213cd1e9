"""Two folders change places in one step, or nothing happens."""

from pathlib import Path

import pytest

from utgrec import exchange, storage


def two(folder: Path) -> tuple[Path, Path]:
    paths = folder / "one", folder / "other"
    for path in paths:
        path.mkdir()
        (path / "name").write_text(path.name)
    return paths


def test_swap(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    if not exchange.swap(one, other):
        pytest.skip("this system cannot swap")
    assert (one / "name").read_text() == "other" and (other / "name").read_text() == "one"


def test_what_cannot_be_swapped_is_an_error(tmp_path: Path) -> None:
    one, _ = two(tmp_path)
    try:
        assert not exchange.swap(one, tmp_path / "none")
    except OSError as error:
        assert error.filename == str(one)
    assert (one / "name").read_text() == "one"


@pytest.mark.parametrize("can", [True, False])
def test_a_folder_is_replaced_with_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    if not can:
        monkeypatch.setattr(exchange, "swap", lambda one, other: False)
    for text in ("first", "second"):
        with storage.new_folder(tmp_path / "final") as new:
            (new / "text").write_text(text)
        assert (tmp_path / "final" / "text").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_recover(tmp_path: Path) -> None:
    """A run without the swap was killed between its two renames."""
    aside = tmp_path / ".final.replaced"
    aside.mkdir()
    storage.recover(tmp_path / "final")
    assert (tmp_path / "final").is_dir() and not aside.exists()
    aside.mkdir()
    storage.recover(tmp_path / "final")
    assert aside.is_dir()  # nothing is missing, nothing is touched
