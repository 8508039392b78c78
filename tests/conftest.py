import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from installation import installed, sdist, wheel
from middlewares import interface

__all__ = ["installed", "interface", "sdist", "wheel"]

pytest_plugins = ["allowed_skips", "file_durations", "canary_mw.pytest_plugin"]

# What is drawn is the same on every run, so that a change is judged by what it changes. To look for news:
# HYPOTHESIS_PROFILE=explore pytest ...
settings.register_profile("same", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _variables_end_with_the_test() -> Iterator[None]:
    """`canary-mw serve` gives its workers its settings by variables, which a middleware of the next test would read."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
