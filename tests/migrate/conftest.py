"""Tests of migrations use temporary folders in memory, and databases of applications that are made once."""

from __future__ import annotations

import pytest

from tests.migrate.applications import make
from tests.support.memory import tmp_path as tmp_path


@pytest.fixture(scope="session")
def trac(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the database of a Trac environment with 20 tickets."""
    folder = tmp_path_factory.mktemp("trac") / "environment"
    make("trac", folder, 20)
    return str(folder / "db" / "trac.db")


@pytest.fixture(scope="session")
def roundup(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the database of a tracker of Roundup with 12 issues."""
    folder = tmp_path_factory.mktemp("roundup") / "tracker"
    make("roundup", folder, 12)
    return str(folder / "db" / "db")


@pytest.fixture(scope="session")
def django_histories(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a database with histories of three packages of Django."""
    path = tmp_path_factory.mktemp("django") / "shop.db"
    make("histories", path)
    return str(path)


@pytest.fixture(scope="session")
def continuum(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a database with versions of SQLAlchemy-Continuum."""
    path = tmp_path_factory.mktemp("continuum") / "shop.db"
    make("continuum", path)
    return str(path)
