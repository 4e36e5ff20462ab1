"""The server: one HTTP interface to stores, for clients in any language."""

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.errors import MissingExtra
from eventfold.server.settings import Settings

if TYPE_CHECKING:
    from eventfold.server.asgi import application

__all__ = ["Settings", "application"]


def __getattr__(name: str) -> Any:
    """Import the application when it is first asked for, so that an installation without the extra gets a sentence."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = importlib.import_module("eventfold.server.asgi").application
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "eventfold":
            raise
        raise MissingExtra(
            f"The server needs the package {error.name!r}, which is not installed.",
            "Install the extra: pip install 'eventfold[server]'",
            extra="server",
        ) from error
    globals()[name] = found
    return found
