"""A server as a store: the engine port over HTTP, by aiohttp.

engine       the port: each call is one message to the server
services     look-ups, snapshots, copying
locks        named locks, whose leases are renewed in the background
watching     notification of commits, by requests that the server answers when there is one
background   an event loop in a thread of its own: for callers that block, and for what runs beside the calls
connection   one call: sending, repeating it where that is safe, the epoch of each answer
failures     what a lost connection, a proxy or the server says, as errors of the library
options      the address and the options
"""

from eventfold.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
