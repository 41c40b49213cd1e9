"""Tables to a domain, stopped half way: nothing is left, and done again it is uninterrupted."""

import subprocess
import sys
from pathlib import Path

import pytest
from shop_files import ITEMS, picture, write_shop

from interruptions import fill_disk, kill_some
from utgrec.data.cleaning.clean import CleanOptions, clean_domain
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.errors import StorageError

OPTIONS = TableOptions(name="tea", k_core=1)

SCRIPT = """
import sys
from pathlib import Path
from utgrec.data.prepare import TableOptions, prepare_table
print("ready", flush=True)
prepare_table(Path(sys.argv[1]), Path(sys.argv[2]), TableOptions(name="tea", k_core=1))
"""


def pictured_shop(folder: Path, count: int = 40) -> Path:
    items = [{**ITEMS[0], "item_id": f"i{n}", "image": f"{n % 3}.png"} for n in range(count)]
    events = [(f"u{n % 7}", f"i{n % count}", 1_400_000_000 + n // 2) for n in range(20 * count)]
    write_shop(folder, items, events)
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(size=(n + 3, 2)))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("after", range(9))
def test_a_full_disk_leaves_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    source = pictured_shop(tmp_path / "shop")
    fill_disk(monkeypatch, after)
    with pytest.raises(StorageError, match=r"the disk of .* is full .* nothing was left behind"):
        prepare_table(source, tmp_path / "out" / "x", OPTIONS)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_real_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """Polars names the number of a system's error in words alone: a patched writer hides that."""
    source = pictured_shop(tmp_path / "shop", 400)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    command = [sys.executable, "-c", limit + SCRIPT, str(source), str(tmp_path / "out" / "x")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "StorageError: a file in " in ended.stderr and "ulimit -f" in ended.stderr
    assert "nothing was left behind" in ended.stderr.strip().splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("after", range(3))
def test_cleaning_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    prepare_table(pictured_shop(tmp_path / "shop"), tmp_path / "all", OPTIONS)
    fill_disk(monkeypatch, after)
    with pytest.raises(StorageError, match=r"the disk of .* is full .* nothing was left behind"):
        clean_domain(tmp_path / "all", tmp_path / "out" / "x", CleanOptions(drop_bursts=2))
    assert list((tmp_path / "out").iterdir()) == []


def test_killed_at_random_points_and_run_again_is_uninterrupted(tmp_path: Path) -> None:
    source, out = pictured_shop(tmp_path / "shop", 400), tmp_path / "out" / "x"
    prepare_table(source, tmp_path / "whole", OPTIONS)
    kill_some(SCRIPT, source, out, out=out, longest_s=0.3)
    prepare_table(source, out, OPTIONS)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert [path.name for path in out.parent.iterdir()] == ["x"]
