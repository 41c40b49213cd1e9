"""Fuzz the parsers with atheris: `make fuzz`, or `python tests/fuzz/run.py --seconds 60 csv gzip`.

Every target runs in a process of its own for its share of the time, from the seeds in `targets.py`
and with the code under test instrumented. A finding ends with its bytes in a file and exit code 1.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Fuzz a target in this process; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["utgrec.data", "utgrec.tokenizer.sem_ids"]):
        sys.path.insert(0, str(HERE))
        from targets import TARGETS
    target = TARGETS[name]

    def once(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=os.environ.get("FUZZ_TMP")) as folder:
            target.run(data, Path(folder))

    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()


def fuzz_in_process(name: str, seconds: int, out: Path) -> dict[str, Any]:
    """Fuzz a target in a process of its own; what came out."""
    sys.path.insert(0, str(HERE))
    from targets import TARGETS

    corpus = out / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    began = time.monotonic()
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=30", "-rss_limit_mb=4096"]
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--one",
            name,
            "--",
            *limits,
            f"-artifact_prefix={out}/{name}-",
            "-print_final_stats=1",
            str(corpus),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds * 3 + 300,
        check=False,
    )
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "target": name,
        "seconds": round(time.monotonic() - began, 1),
        "runs": int(runs.group(1)) if runs else 0,
        "edges": int(edges[-1]) if edges else 0,
        "finding": None if done.returncode == 0 else done.stderr[-4000:],
    }


def main() -> int:
    """Run the targets one after the other, print a table, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="names; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="in all (default 60)")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="corpus and findings")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from targets import TARGETS

    names = options.targets or list(TARGETS)
    each = max(2, options.seconds // len(names))
    found = []
    for name in names:
        found.append(fuzz_in_process(name, each, options.out))
        line = found[-1]
        state = "ok" if line["finding"] is None else "FINDING"
        sys.stdout.write(f"{name:10} {line['runs']:>8,} runs {line['edges']:>6,} edges  {state}\n")
        if line["finding"]:
            sys.stdout.write(line["finding"] + "\n")
    if options.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count()}
        command = f"python tests/fuzz/run.py --seconds {options.seconds}"
        result = {"command": command, "machine": machine, "targets": found}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(line["finding"] for line in found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[4:])
    else:
        raise SystemExit(main())
