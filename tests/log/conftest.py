"""Fixtures of tests of decisions."""

from __future__ import annotations

from tests.support.three_stores import store as store
from tests.support.three_stores import url as url
