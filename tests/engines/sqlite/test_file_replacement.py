"""A folder's stamp shows whether its entries changed since the last check, and says "changed" where it cannot know."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from eventfold.engines.sqlite import file_replacement as module
from eventfold.engines.sqlite.file_replacement import DirectoryStamp


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose last change is old enough that another change would alter its stamp."""
    monkeypatch.setattr(module, "COARSEST_TIMESTAMP_NS", 20_000_000)
    (tmp_path / "log.db").write_text("log")
    time.sleep(0.05)
    return tmp_path


def checked_stamp(path: Path) -> DirectoryStamp:
    """Return the folder's stamp after a first check that found nothing wrong."""
    folder = DirectoryStamp(str(path))
    mark = folder.current()
    assert mark != folder.remembered  # nothing is known before the first check
    folder.remember(mark)
    return folder


def test_writing_to_files_leaves_the_stamp_unchanged(old: Path) -> None:
    """Writing to the files in a folder leaves its stamp the same."""
    folder = checked_stamp(old)
    (old / "log.db").write_text("more")
    assert folder.current() == folder.remembered


@pytest.mark.parametrize("what", ["create", "remove", "replace", "rename"])
def test_a_change_of_its_entries_shows(old: Path, what: str) -> None:
    """Creating, removing, replacing or renaming an entry changes the stamp."""
    (old / "other").write_text("another")
    time.sleep(0.05)
    folder = checked_stamp(old)
    assert folder.current() == folder.remembered
    if what == "create":
        (old / "new").touch()
    elif what == "remove":
        (old / "log.db").unlink()
    elif what == "replace":
        os.replace(old / "other", old / "log.db")
    else:
        (old / "log.db").rename(old / "elsewhere")
    assert folder.current() != folder.remembered


def test_a_folder_put_in_its_place_is_another(old: Path) -> None:
    """The stamp changes if the path leads to another folder, or to none."""
    inner = old / "inner"
    inner.mkdir()
    time.sleep(0.05)
    folder = checked_stamp(inner)
    inner.rename(old / "moved")
    assert folder.current() != folder.remembered
    inner.mkdir()
    assert folder.current() != folder.remembered


def test_a_very_recent_change_is_not_trusted_to_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the coarsest timestamp of a file system a second change can leave the same stamp: check each time."""
    assert module.COARSEST_TIMESTAMP_NS > 2_000_000_000
    monkeypatch.setattr(
        module, "COARSEST_TIMESTAMP_NS", 1_000_000_000_000
    )  # longer than this machine can take to check
    (tmp_path / "log.db").touch()
    folder = checked_stamp(tmp_path)
    assert folder.current() != folder.remembered
