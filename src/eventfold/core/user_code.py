"""Errors of user code: an exception of a user's module or class as an error with the line that raised it.

Knows: tracebacks. Does not know: what the code was called for.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from eventfold.errors import EventfoldError, InvalidInput, InvalidState

LIBRARY_FOLDER = str(Path(__file__).parents[1])  # an error raised in the library itself keeps its traceback


@contextmanager
def user_code_errors(what: str, error: type[InvalidInput] = InvalidState) -> Generator[None, None, None]:
    """Turn an exception of user code into `error` with its location; errors of the library pass unchanged."""
    try:
        yield
    except EventfoldError:
        raise
    except (Exception, SystemExit) as raised:  # a user's class may raise anything
        frames = traceback.extract_tb(raised.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((LIBRARY_FOLDER, "<frozen importlib"))]
        syntax = raised if isinstance(raised, SyntaxError) else None
        if frames and frames[-1].filename.startswith(LIBRARY_FOLDER) and syntax is None:
            raise
        place = f"{syntax.filename}, line {syntax.lineno}" if syntax else _source_line(theirs)
        raise error(
            f"{what} failed: {type(raised).__name__}: {syntax.msg if syntax else raised}.",
            f"Fix it at {place}." if place else "Fix it there.",
            raised=type(raised).__name__,
        ) from raised


def _source_line(frames: list[traceback.FrameSummary]) -> str:
    foreign = ("site-packages", sys.base_prefix)
    own = [f for f in frames if not any(each in f.filename for each in foreign)] or frames
    if not own:
        return ""
    frame = own[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{Path(frame.filename).name}, line {frame.lineno}{f': {line}' if line else ''}"
