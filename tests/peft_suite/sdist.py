"""The tests that PEFT publishes in its sdist, for exactly the version that is installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


class SdistUnavailable(RuntimeError):
    """PEFT's sdist is neither in the cache nor to be had from the package index."""


def peft_tests(cache: Path) -> Path:
    """The folder with PEFT's own test files, fetched at most once per version into `cache`.

    pip reads only the sdist's metadata: nothing is built, no dependency is resolved.
    Raises SdistUnavailable, with pip's last line, when there is no cached copy and no index.
    """
    tests = cache / f"peft-{version('peft')}-tests"
    if not tests.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unpacked = _unpack(_download(Path(scratch)), Path(scratch))
            try:
                os.replace(unpacked, tests)
            except OSError:  # a run beside this one was first; its copy is the same
                if not tests.is_dir():
                    raise
    return tests


def copy_as_package(tests: Path, package: Path) -> None:
    """Copy PEFT's files, unchanged, to a package of our own name: they import each other relatively."""
    shutil.copytree(tests, package)
    (package / "__init__.py").touch()


def _download(folder: Path) -> Path:
    requirement = f"peft=={version('peft')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", "peft", "--dest", str(folder), requirement]
    pip = subprocess.run(command, capture_output=True, text=True)
    archives = list(folder.glob("peft-*.tar.gz"))
    if pip.returncode or not archives:
        last_line = (pip.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise SdistUnavailable(f"the sdist of {requirement} is not cached and cannot be downloaded: {last_line}")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "tests"
