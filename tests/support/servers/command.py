"""The command `eventfold serve` in a process of its own, on a free port, in a folder.

Knows: the command. Does not know: what is asked of the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


@contextmanager
def served(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Run `eventfold serve` with these arguments in a folder, and yield its address. It is ended afterwards."""
    paths = os.pathsep.join([str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "eventfold", "serve", *arguments, "--port", "0", "--json"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": paths} | environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise RuntimeError(f"the server did not start: {errors.read()[-2000:]}")
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            process.wait(timeout=60)
