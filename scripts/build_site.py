"""`make docs`: builds the documentation of this version into a folder of its own, beside those of other versions.

Usage: python scripts/build_site.py [FOLDER]; the default is build/docs. Warnings are errors: a broken link, a missing
anchor or a page that is in no navigation ends the build with its name, and the exit code 1.
Knows: the layout of the site for several versions. Does not know: pages (site.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
LATEST = """<!doctype html>
<meta charset="utf-8"><title>eventfold</title>
<meta http-equiv="refresh" content="0; url={version}/index.html">
<a href="{version}/index.html">eventfold {version}</a>
"""


def main(folder: Path) -> int:
    """Build the site. Returns the exit code of MkDocs."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    settings = {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(ROOT / "mkdocs.yml")]
    done = subprocess.run([*command, "--site-dir", str(folder / version)], env={**os.environ, **settings}, check=False)
    if done.returncode:
        return done.returncode
    versions = sorted(filter(None, map(_version, folder.iterdir())), reverse=True)
    listed = [{"version": str(each), "title": str(each), "aliases": []} for each in versions]
    (folder / "versions.json").write_text(json.dumps(listed) + "\n", "utf-8")
    (folder / "index.html").write_text(LATEST.format(version=versions[0]), "utf-8")
    print(f"{folder / 'index.html'}")
    return 0


def _version(path: Path) -> Version | None:
    try:
        return Version(path.name) if path.is_dir() else None
    except InvalidVersion:
        return None


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2] or [ROOT / "build" / "docs"]).resolve()))
