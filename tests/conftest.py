"""What every test shares: the same examples on every run, and no deadline on a busy machine."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("mora", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("mora")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT
