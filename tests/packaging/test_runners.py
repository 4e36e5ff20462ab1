"""`uvx` and `pipx run` start the command from the wheel, without installing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import new_environment, run


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of uvx and pipx, in an environment of their own."""
    return new_environment(tmp_path_factory.mktemp("tools") / "env", "uv", "pipx").parent


def test_uvx_runs_the_command(tools: Path, wheel: Path, tmp_path: Path) -> None:
    """With the extra in brackets, as the documents say."""
    own = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_SYSTEM_CERTS": "1"}
    uvx = [tools / "uvx", "--from", f"eventfold[cli] @ {wheel.as_uri()}", "eventfold"]
    assert run([*uvx, "--version"], tmp_path, own).startswith("eventfold ")
    run([*uvx, "init", "seats.db"], tmp_path, own)
    assert (tmp_path / "seats.db").exists()


def test_pipx_runs_the_command(tools: Path, wheel: Path, tmp_path: Path) -> None:
    """With the extra in brackets, as the documents say."""
    own = {"PIPX_HOME": str(tmp_path / "pipx"), "UV_SYSTEM_CERTS": "1"}  # pipx installs by uv where it finds it
    pipx = [tools / "pipx", "run", "--spec", f"{wheel}[cli]", "eventfold"]
    assert run([*pipx, "--version"], tmp_path, own).startswith("eventfold ")
    run([*pipx, "init", "seats.db"], tmp_path, own)
    assert (tmp_path / "seats.db").exists()
