"""What commands write to files is there whole, or what was there before is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from eventfold.cli.output import write_file_atomically
from eventfold.errors import EventfoldError


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the file is synced: an error in two sentences, and no partial file beside it."""
    file = tmp_path / "schema.json"
    file.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EventfoldError, match="cannot be saved") as raised:
        write_file_atomically(file, b"new", "The schemas")
    assert raised.value.remedy.endswith(".")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("schema.json", b"old")]


def test_a_file_keeps_its_rights_and_a_link_stays_a_link(tmp_path: Path) -> None:
    """Only what is in it changes; what is no file is written to as it is."""
    file, link = tmp_path / "schema.json", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_file_atomically(link, b"new", "The schemas")
    assert link.is_symlink() and file.read_bytes() == b"new" and file.stat().st_mode & 0o777 == 0o640
    write_file_atomically(Path(os.devnull), b"nothing", "The schemas")
