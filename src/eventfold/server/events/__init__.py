"""Events over HTTP: append them, read them by query, look single ones up."""

from eventfold.server.events import append, cloud, lookups, reading
from eventfold.server.route import Route

ROUTES: tuple[Route, ...] = (*append.ROUTES, *cloud.ROUTES, *reading.ROUTES, *lookups.ROUTES)
