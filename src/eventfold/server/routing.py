"""The router: a route is found by its path in a dictionary; only paths with values of their own are tried in turn.

Starlette tries the routes one after the other, which for the last of a hundred takes longer than many answers.
Knows: Starlette's routes. Does not know: what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

STORES = "/v1/stores/"
STORE = "{store}"


class IndexedRouter(Router):
    """Routes with at most the name of a store in their path are found by it; all others as Starlette does."""

    def __init__(self, routes: Sequence[BaseRoute], **options: Any) -> None:
        super().__init__(routes, **options)
        self._by_path: dict[tuple[str, str], Route] = {}
        for route in routes:
            if isinstance(route, Route) and "{" not in route.path.replace(STORE, "", 1):
                for method in route.methods or ():
                    self._by_path.setdefault((method, route.path), route)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the route of a request."""
        route = self.find(scope) if scope["type"] == "http" else None
        if route is not None:
            await route.handle(scope, receive, send)
        else:
            await super().app(scope, receive, send)

    def find(self, scope: Scope) -> Route | None:
        """Return the route of an HTTP request, with its values in the scope; None if its path is not in the table."""
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        name = None
        if path.startswith(STORES):
            name, slash, rest = path[len(STORES) :].partition("/")
            if name and slash:
                path = f"{STORES}{STORE}/{rest}"
            else:
                name = None
        route = self._by_path.get((scope["method"], path))
        if route is None:
            return None
        scope["router"], scope["route"], scope["endpoint"] = self, route, route.endpoint
        values = scope.get("path_params", {})
        scope["path_params"] = {**values, "store": name} if name is not None else {**values}
        return route
