"""The kernels are compiled once; where they cannot be, decoding goes on without them."""

import os
import shutil
import subprocess
import time

import pytest
import torch

from utgrec.decoding.kernels import build
from utgrec.decoding.kernels.native import find_functions

COMPILER = next(filter(None, map(shutil.which, build.COMPILERS)), None)


def forget():
    build.open_library.cache_clear()
    find_functions.cache_clear()


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UTGREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    forget()
    yield tmp_path / "cache" / "kernels"
    forget()


@pytest.mark.skipif(COMPILER is None, reason="no compiler on this machine")
def test_compiled_once_and_found_again(empty_cache, monkeypatch, tmp_path):
    source = tmp_path / "none.cpp"  # quick to compile, and without a single kernel
    source.write_text('extern "C" void* find_kernel(int, int) { return nullptr; }')
    monkeypatch.setattr(build, "SOURCES", [source])
    assert find_functions(torch.float32) is None
    assert build.open_library() is not None
    assert len(list(empty_cache.iterdir())) == 1  # nothing half made is left
    build.open_library.cache_clear()
    monkeypatch.setattr(build, "COMPILERS", ())
    assert build.open_library() is not None


@pytest.mark.skipif(COMPILER is None, reason="no compiler on this machine")
def test_only_what_is_long_out_of_use_is_removed(empty_cache, monkeypatch, tmp_path):
    source = tmp_path / "none.cpp"
    source.write_text('extern "C" void* find_kernel(int, int) { return nullptr; }')
    monkeypatch.setattr(build, "SOURCES", [source])
    ours = build._name().split("-")[0]
    old = {f"{ours}-other.so", "other-old.so", "oldname.so", ".other-old.so.7.partial"}
    empty_cache.mkdir(parents=True)
    for name in (*old, "other-new.so", "note.txt"):
        (empty_cache / name).touch()
    for name in (*old, "note.txt"):
        os.utime(empty_cache / name, (0, time.time() - build.KEPT_S - 60))
    assert build.open_library() is not None
    left = {path.name for path in empty_cache.iterdir()}
    assert left == {f"{build._name()}.so", f"{ours}-other.so", "other-new.so", "note.txt"}


@pytest.mark.skipif(COMPILER is None, reason="no compiler on this machine")
def test_opening_keeps_a_library_from_being_removed(empty_cache, monkeypatch, tmp_path):
    first, second = tmp_path / "first.cpp", tmp_path / "second.cpp"
    for number, source in enumerate((first, second)):
        source.write_text(f'extern "C" void* find_kernel(int, int) {{ return (void*){number}; }}')
    monkeypatch.setattr(build, "SOURCES", [first])
    assert build.open_library() is not None
    (made,) = empty_cache.iterdir()
    os.utime(made, (0, 0))
    forget()
    assert build.open_library() is not None  # found again, and in use
    forget()
    monkeypatch.setattr(build, "SOURCES", [second])
    assert build.open_library() is not None
    assert made.is_file() and len(list(empty_cache.iterdir())) == 2


def test_without_a_compiler_there_is_no_library(empty_cache, monkeypatch):
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    assert build.open_library() is None
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    "failure", [subprocess.CalledProcessError(1, "g++"), subprocess.TimeoutExpired("g++", 1)]
)
def test_a_compiler_that_fails_leaves_nothing(empty_cache, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(build, "COMPILERS", ("sh",))
    monkeypatch.setattr(build.subprocess, "run", fail)
    assert build.open_library() is None
    assert list(empty_cache.iterdir()) == []


def test_a_broken_library_is_not_used(empty_cache):
    empty_cache.mkdir(parents=True)
    (empty_cache / f"{build._name()}.so").write_bytes(b"not a library")
    assert build.open_library() is None


def test_it_can_be_switched_off(empty_cache, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.open_library() is None
    assert not empty_cache.exists()
