"""The command: a plan in, tables and a page out."""

import json

from typer.testing import CliRunner

from utgrec.cli import app

PLAN = """
reference = "knn"
group_users = 5
resamples = 200
budget = 2
[[domains]]
folder = "FOLDER"
[[systems]]
name = "knn"
family = "itemknn"
[[systems]]
name = "popular"
family = "popularity"
tuned = false
"""


def test_the_command(domains, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace("FOLDER", str(domains[0])))
    words = ["compare", str(plan), "--out", str(tmp_path / "out"), "--in-process"]
    first = CliRunner().invoke(app, [*words, "--json"])
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    assert document["domains"][0]["systems"][0]["system"] == "knn"
    for kind in ("md", "html", "json", "parquet"):
        assert (tmp_path / "out" / f"comparison.{kind}").is_file()
    again = CliRunner().invoke(app, words)
    assert "kitchen: 60 users, 60 items" in again.stdout and "popular" in again.stdout
    assert "3 of 3 tasks were finished before" in again.stderr


def test_the_command_tells_what_is_wrong(domains, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace("FOLDER", str(domains[0])).replace('"itemknn"', '"itemkn"'))
    words = ["compare", str(plan), "--out", str(tmp_path / "out"), "--json"]
    wrong = CliRunner().invoke(app, words)
    assert wrong.exit_code == 2
    assert "there is no baseline 'itemkn'" in json.loads(wrong.stdout)["error"]["message"]
