"""The command line: one file for each group of commands; this one is the entry point.

Knows: how the process starts and ends. Does not know: any command. It imports no command and no extra by itself, so
that `eventfold --version` is fast and a missing extra is reported in words.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from eventfold.errors import MissingExtra

if TYPE_CHECKING:
    import typer

    app: typer.Typer

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """Create the typer application `app` on first use."""
    if name == "app":
        from eventfold.cli.application import application

        globals()["app"] = application()
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line and exit with one of the codes in `exit_codes.py`."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot encode a character shows "?"
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if sys.argv[1:] == ["--version"]:  # needs no extra
        print(version_text())
        return
    try:
        try:
            from eventfold.cli.application import application

            app = application(sys.argv[1] if len(sys.argv) > 1 else None)
        except ModuleNotFoundError as error:
            raise missing_package_error(error) from error
        app(prog_name="eventfold")
    except MissingExtra as error:
        print(f"{error.what}\n{error.remedy}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before any command has started
        os._exit(130)


def version_text() -> str:
    """The output of `eventfold --version`."""
    from eventfold import __version__

    return f"eventfold {__version__}"


def missing_package_error(error: ModuleNotFoundError) -> MissingExtra:
    """The error for a missing extra `cli`; any other missing module is raised unchanged."""
    if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
        raise error
    return MissingExtra(
        f"The command line needs a package that is not installed ({error.name}).",
        'Install it: pip install "eventfold[cli]".',
        extra="cli",
    )
