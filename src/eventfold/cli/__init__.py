"""The command line. One file for each group of verbs; this one is the door.

Knows: how a process begins and ends. Does not know: any command, and nothing of what commands need, so that
`eventfold --version` is quick and a missing extra is told in words.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from eventfold.errors import MissingExtra

if TYPE_CHECKING:
    from eventfold.cli.application import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """`app` is the typer application; it is made when someone asks for it."""
    if name == "app":
        from eventfold.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line of this process; ends it with one of the codes in `exit_codes.py`."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows "?" instead
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if sys.argv[1:] == ["--version"]:  # the one answer that needs nothing else
        print(version_text())
        return
    try:
        try:
            from eventfold.cli.application import app
        except ModuleNotFoundError as error:
            raise missing_package_error(error) from error
        app(prog_name="eventfold")
    except MissingExtra as error:
        print(f"{error.what}\n{error.now}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before any command had begun
        os._exit(130)


def version_text() -> str:
    """What `eventfold --version` says."""
    from eventfold import __version__

    return f"eventfold {__version__}"


def missing_package_error(error: ModuleNotFoundError) -> MissingExtra:
    """The error for a command line whose own libraries are absent. A fault of ours is raised as it is."""
    if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
        raise error
    return MissingExtra(
        f"The command line needs a package that is not installed ({error.name}).",
        'Install it: pip install "eventfold[cli]".',
        extra="cli",
    )
