"""What holds for every test: how many examples Hypothesis tries, and that a slow machine is no failure."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Hooks: tests whose program is missing are skipped by its name, or fail.
from tests.support.programs import (
    pytest_configure as pytest_configure,
)
from tests.support.programs import (
    pytest_runtest_call as pytest_runtest_call,
)
from tests.support.programs import (
    pytest_runtest_setup as pytest_runtest_setup,
)
from tests.support.programs import (
    pytest_terminal_summary as pytest_terminal_summary,
)

pytest.register_assert_rewrite("eventfold.testing.conformance")  # before any test imports it

settings.register_profile("project", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", parent=settings.get_profile("project"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))
