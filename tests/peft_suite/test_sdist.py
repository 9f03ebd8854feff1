"""Fetching PEFT's sdist: at most once, and with one clear sentence where it cannot be had."""

from importlib.metadata import version

import pytest
from sdist import SdistUnavailable, copy_as_package, peft_tests


@pytest.fixture(autouse=True)
def no_package_index(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_without_index_and_cache_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(SdistUnavailable, match=rf"peft=={version('peft')} is not cached and cannot be downloaded: \S"):
        peft_tests(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_cached_copy_needs_no_index(tmp_path):
    cached = tmp_path / f"peft-{version('peft')}-tests"
    cached.mkdir()
    assert peft_tests(tmp_path) == cached


def test_copy_is_a_package_with_unchanged_files(tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_one.py").write_text("from .testing_common import x\n")
    copy_as_package(tests, tmp_path / "package")
    assert (tmp_path / "package" / "__init__.py").read_text() == ""
    assert (tmp_path / "package" / "test_one.py").read_bytes() == (tests / "test_one.py").read_bytes()
