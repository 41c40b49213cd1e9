"""The fuzzer of the readers of lines finds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

SEEDS = [
    b'{"user_id": "u", "parent_asin": "B1", "timestamp": 1500000000000}\n{"half',
    b'u,B1,5.0,1500000000000\n"u,",B1,,1\n',
    b'{"parent_asin": "B1", "title": "a<b>", "images": [{"large": "https://a"}], "price": "$1"}\n',
]


@pytest.mark.slow
def test_random_bytes_break_no_reader(tmp_path):
    pytest.importorskip("atheris")
    for number, seed in enumerate(SEEDS):
        (tmp_path / f"{number}").write_bytes(seed)
    script = Path(__file__).with_name("fuzz_lines.py")
    done = subprocess.run(
        [sys.executable, script, "-runs=3000", "-max_len=400", "-seed=7", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 3000 runs" in done.stderr
