"""The commands for other programs' folders, as somebody types them."""

import json
from pathlib import Path

from typer.testing import CliRunner

from utgrec.catalog import Domain
from utgrec.cli import app


def typed(*words: object, code: int = 0) -> dict[str, object]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def write_log(folder: Path) -> Path:
    folder.mkdir()
    (folder / "goods.csv").write_text("sku,name\n" + "".join(f"i{n},Cup {n}\n" for n in range(4)))
    lines = ["who,sku,when,what"]
    for user in range(6):
        for step in range(6):
            day = f"{step + 1:02}.0{user % 3 + 1}.2020 10:00"
            lines.append(f"u{user},i{(user + step) % 4},{day},{'view' if step % 3 else 'buy'}")
    (folder / "log-1.csv").write_text("\n".join(lines[:20]) + "\n")
    (folder / "log-2.csv").write_text("\n".join([lines[0], *lines[20:]]) + "\n")
    return folder


def test_a_shop_of_any_shape_there_and_back(tmp_path: Path) -> None:
    shop, out = write_log(tmp_path / "shop"), tmp_path / "domain"
    (shop / "utgrec.toml").write_text(
        'interactions_file = "log-*.csv"\ntime_format = "%d.%m.%Y %H:%M"\nk_core = 4\n'
        '[columns]\nuser = "who"\ntimestamp = "when"\nevent = "what"\n'
    )
    found = typed(
        *("prepare", "table", shop, "--out", out, "--k-core", 1, "--time-zone", "Europe/Berlin"),
        *("--event", "buy=2", "--event", "view=0.5", "--min-weight", 0.5),
        *("--split", "global-time", "--valid-share", 0.2, "--test-share", 0.3),
    )
    domain = Domain.open(out)
    assert domain.interaction_count == 36 and domain.split.kind == "global-time"
    assert found["events"]["kinds"]["buy"]["weight"] == 2.0  # type: ignore[index]
    assert "global time" in typed("inspect", out)["split"]  # type: ignore[operator]
    for form, command in (("csv", "table"), ("parquet", "table"), ("recbole", "recbole")):
        typed("export", out, "--format", form, "--out", tmp_path / form)
        typed("prepare", command, tmp_path / form, "--out", tmp_path / f"again-{form}")
        again = Domain.open(tmp_path / f"again-{form}")
        assert again.catalog.table.equals(domain.catalog.table)
        assert again.split == domain.split and again.items.tolist() == domain.items.tolist()
    typed("export", out, "--format", "authors", "--out", tmp_path / "authors")
    codes = {f"i{n}": [n, 256 + n, 256] for n in range(4)}
    (tmp_path / "authors" / "tree.sem_ids").write_text(json.dumps(codes))
    typed(
        *("prepare", "authors", tmp_path / "authors", "--out", tmp_path / "from-authors"),
        *("--codes-out", tmp_path / "codes"),
    )
    final = tmp_path / "with-codes"
    typed(
        *("export", tmp_path / "from-authors", "--format", "authors", "--out", final),
        *("--codes", tmp_path / "codes"),
    )
    assert json.loads((final / "shop.sem_ids").read_text()) == codes


def test_another_split_from_a_domain(tmp_path: Path) -> None:
    shop, out = write_log(tmp_path / "shop"), tmp_path / "domain"
    flags = ["--interactions", "log-*.csv", "--k-core", 1, "--time-format", "%d.%m.%Y %H:%M"]
    flags += ["--column", "user=who", "--column", "timestamp=when"]
    typed("prepare", "table", shop, "--out", out, *flags)
    dates = ("--valid-from", "2020-02-01", "--test-from", "2020-03-01")
    found = typed("prepare", "split", out, "--out", tmp_path / "cut", *dates)
    assert found["name"] == "shop-time"
    assert found["split"]["training_interactions"] == 12  # type: ignore[index]
    wrong = typed("prepare", "split", out, "--out", tmp_path / "no", *dates[:2], code=2)
    assert "both or not at all" in wrong["error"]["message"]  # type: ignore[index]
    wrong = typed("prepare", "table", shop, "--out", tmp_path / "no", "--event", "a=b", code=2)
    assert "KIND=WEIGHT" in wrong["error"]["message"]  # type: ignore[index]
    assert not (tmp_path / "no").exists()
