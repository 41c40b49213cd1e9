"""A local Ray cluster makes the same domain as one process, and names the same errors."""

import json

import pytest

pytest.importorskip("ray")

from utgrec.catalog import Domain
from utgrec.data.amazon2023.prepare import AmazonOptions, prepare_amazon
from utgrec.data.cluster import RayMachine, ray_machine
from utgrec.errors import BadConfig, BadTable

CATEGORY = "Musical_Instruments"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    import warnings

    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
        )
        with ray_machine():
            yield RayMachine(share_bytes=20_000)
        assert ray.is_initialized()  # only who starts a cluster ends it
        ray.shutdown()


def write(folder, reviews: bytes, items: bytes):
    folder.mkdir()
    (folder / f"{CATEGORY}.jsonl").write_bytes(reviews)
    (folder / f"meta_{CATEGORY}.jsonl").write_bytes(items)
    return folder


def lines_of(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def some_files(folder):
    reviews = [
        {"user_id": f"U{n * n % 37}", "parent_asin": f"B{n * 7 % 23}", "timestamp": 10**12 + n % 11}
        | {"text": "word " * (n % 30)}
        for n in range(900)
    ]
    items = [{"parent_asin": f"B{n % 25}", "title": f"T{n}", "features": ["a"]} for n in range(600)]
    broken = lines_of(reviews[:500]) + b'{"half\n\n' + lines_of(reviews[500:])
    return write(folder, broken, lines_of(items[:300]) + b"\xff\n" + lines_of(items[300:]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_same_domain_as_on_one_machine(cluster, tmp_path):
    data = some_files(tmp_path / "data")
    options = AmazonOptions(k_core=2)
    alone = prepare_amazon(CATEGORY, data, tmp_path / "alone", options)
    together = prepare_amazon(CATEGORY, data, tmp_path / "together", options, machine=cluster)
    assert together == alone  # hashes of all files, of the input, and every count
    assert len(alone.facts["rejected"]) == 3
    assert Domain.open(tmp_path / "together").interaction_count > 300


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_errors_of_workers_are_named(cluster, tmp_path):
    data = some_files(tmp_path / "data")
    path = data / f"meta_{CATEGORY}.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadTable, match="the last line is only half there"):
        prepare_amazon(CATEGORY, data, tmp_path / "out", AmazonOptions(k_core=2), machine=cluster)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadTable, match=r"jsonl, line 501: broken row"):
        strict = AmazonOptions(k_core=2, bad_rows="error")
        prepare_amazon(CATEGORY, data, tmp_path / "out", strict, machine=cluster)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:x"])
def test_no_cluster_there(address):
    with pytest.raises(BadConfig, match="no Ray cluster at"), ray_machine(address):
        pass
