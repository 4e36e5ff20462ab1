"""Rows in Redis: a hash for each read model, with a field for each row, whose value is the row as JSON.

    HGET carrier_month '["UA",1]'      a key of one text is that text; any other is a JSON array
    carrier_month:2                    another generation: one that is being built, or the previous one
    carrier_month:eventfold            state of the sink: store, live generation, and each partition's last batch

One script writes a batch and its number, so both are written or neither is. Switching to another generation renames two
hashes, in constant time. Knows: redis. Does not know: how rows are computed, when they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import redis

from eventfold.errors import InvalidUrl, TargetUnavailable
from eventfold.ports.sink import Batch, SinkState

TIMEOUT_S = 5.0  # to connect, and to wait for an answer

# The beginning of every script. `hash` returns the key of a generation's hash, the plain name while it is live. `ours`
# records the store as the owner of the rows, or returns an error if they belong to another.
SCRIPT_HEADER = """
local facts, name = KEYS[1], KEYS[2]
local function hash(generation)
  if redis.call('HGET', facts, 'live') == generation then return name end
  return name .. ':' .. generation
end
local function ours(store)
  local known = redis.call('HGET', facts, 'store')
  if not known then
    if redis.call('EXISTS', name) == 1 then return redis.error_reply('FOREIGN a key of that name') end
    redis.call('HSET', facts, 'store', store)
  elseif known ~= store then
    return redis.error_reply('FOREIGN rows of another store')
  end
end
"""
STATE_SCRIPT = f"""{SCRIPT_HEADER}
local number = tonumber(redis.call('HGET', facts, 'number:' .. ARGV[1] .. ':' .. ARGV[2]) or 0)
local rows = tonumber(redis.call('HGET', facts, 'rows:' .. ARGV[1]) or 0)
if number > 0 and redis.call('HLEN', hash(ARGV[1])) ~= rows then number = -1 end
return {{redis.call('HGET', facts, 'store') or '', number, tonumber(redis.call('HGET', facts, 'live') or 0)}}
"""
# ARGV: store, generation, partition, number, after, position, chunk, more, how many puts; field, value, …; field, …
WRITE_SCRIPT = f"""{SCRIPT_HEADER}
local refused = ours(ARGV[1])
if refused then return refused end
local generation, number, after, chunk = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local mine = 'number:' .. generation .. ':' .. ARGV[3]
local last = tonumber(redis.call('HGET', facts, mine) or 0)
if redis.call('HEXISTS', facts, 'live') == 0 then return 0 end
if chunk == 0 then
  if number <= last then return 1 end
  local rows = tonumber(redis.call('HGET', facts, 'rows:' .. generation) or 0)
  if last ~= after or redis.call('HLEN', hash(generation)) ~= rows then return 0 end
elseif number < last then
  return 1
elseif chunk > 1 and redis.call('HGET', facts, 'chunk' .. mine) ~= ARGV[4] .. ':' .. (chunk - 1) then
  return 0
end
local rows, at, puts = hash(generation), 10, tonumber(ARGV[9])
for i = 0, puts - 1 do redis.call('HSET', rows, ARGV[at + 2 * i], ARGV[at + 2 * i + 1]) end
for i = at + 2 * puts, #ARGV do redis.call('HDEL', rows, ARGV[i]) end
redis.call('HSET', facts, 'rows:' .. generation, redis.call('HLEN', rows))
if ARGV[8] == '1' then
  redis.call('HSET', facts, 'chunk' .. mine, ARGV[4] .. ':' .. chunk)
else
  redis.call('HDEL', facts, 'chunk' .. mine)
  redis.call('HSET', facts, mine, ARGV[4], 'position:' .. generation .. ':' .. ARGV[3], ARGV[6])
end
return 1
"""
SHOW_SCRIPT = f"""{SCRIPT_HEADER}
local refused = ours(ARGV[1])
if refused then return refused end
local live, wanted = redis.call('HGET', facts, 'live'), ARGV[2]
if live ~= wanted then
  if live and redis.call('EXISTS', name) == 1 then redis.call('RENAME', name, name .. ':' .. live) end
  if redis.call('EXISTS', name .. ':' .. wanted) == 1 then redis.call('RENAME', name .. ':' .. wanted, name) end
  redis.call('HSET', facts, 'live', wanted)
end
return 1
"""
DROP_SCRIPT = f"""{SCRIPT_HEADER}
local known = redis.call('HGET', facts, 'store')
if known and known ~= ARGV[1] then return redis.error_reply('FOREIGN rows of another store') end
for _, field in ipairs(redis.call('HKEYS', facts)) do
  local generation = string.match(field, '^rows:(%d+)$')
  if generation and (ARGV[2] == '' or generation == ARGV[2]) then redis.call('UNLINK', hash(generation)) end
end
if ARGV[2] == '' then
  redis.call('DEL', facts)
else
  for _, field in ipairs(redis.call('HKEYS', facts)) do
    if string.match(field, '^%a+:' .. ARGV[2] .. '$') or string.match(field, '^%a+:' .. ARGV[2] .. ':') then
      redis.call('HDEL', facts, field)
    end
  end
end
return 1
"""


class RedisSink:
    """The sink in a Redis at `redis://…` or `rediss://…`. Every key begins with `prefix`, or `?prefix=` of the address.

    Raises InvalidUrl.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._prefix = query.pop("prefix", prefix)
        query.setdefault("socket_timeout", str(TIMEOUT_S))
        query.setdefault("socket_connect_timeout", str(TIMEOUT_S))
        try:
            self._client: Any = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                urlunsplit(parts._replace(query=urlencode(query)))
            )
        except (ValueError, TypeError) as error:
            raise InvalidUrl(
                f"The Redis address is invalid ({error}).", "Write redis://HOST:PORT/DATABASE_NUMBER."
            ) from None
        host = parts.hostname or "localhost"
        self.address = f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path.rstrip('/') or '/0'}"
        self._held, self._write, self._show, self._drop = map(
            self._client.register_script, (STATE_SCRIPT, WRITE_SCRIPT, SHOW_SCRIPT, DROP_SCRIPT)
        )

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """See the port."""
        store, number, live = cast("list[Any]", self._run(self._held, projection, (generation, partition)))
        return SinkState(bytes(store).decode(), int(number), int(live))

    def write(self, batch: Batch) -> bool:
        """See the port."""
        arguments: list[Any] = [
            *(batch.store, batch.generation, batch.partition, batch.number, batch.after, batch.position),
            *(batch.chunk, int(batch.more), len(batch.puts)),
        ]
        for row in batch.puts:
            arguments += (hash_field(batch.key, row), msgspec.json.encode(row))
        arguments += [hash_field(batch.key, row) for row in batch.deletes]
        return bool(self._run(self._write, batch.projection, arguments))

    def show(self, projection: str, generation: int, store: str) -> None:
        """See the port."""
        self._run(self._show, projection, (store, generation))

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """See the port."""
        self._run(self._drop, projection, (store, "" if generation is None else generation))

    def _run(self, script: Any, projection: str, arguments: Sequence[Any]) -> Any:
        name = self._prefix + projection
        try:
            return script(keys=[f"{name}:eventfold", name], args=arguments)
        except redis.RedisError as error:
            raise self._translate_error(error, name) from error

    def _translate_error(self, error: redis.RedisError, name: str) -> TargetUnavailable:
        detail = str(error).strip().rstrip(".")
        if "FOREIGN" in detail:
            kind = detail.partition("FOREIGN ")[2].partition(" script")[0]
            what = f"{self.address} has {kind}, {name!r}, already."
            remedy = "Give the projection another name (name=…), or another place (?prefix=… or another database)."
        elif isinstance(error, redis.ReadOnlyError) or "read only" in detail:
            what = f"{self.address} cannot be written to: it is a replica."
            remedy = "Name the primary."
        elif isinstance(error, redis.OutOfMemoryError) or "maxmemory" in detail or "MISCONF" in detail:
            what = f"{self.address} accepts no rows: {detail}."
            remedy = "Free memory or disk space there. A runner then sends the rows."
        elif isinstance(error, redis.AuthenticationError):
            what = f"{self.address} does not accept this user and password: {detail}."
            remedy = "Check the user and the password."
        elif isinstance(error, redis.ConnectionError | redis.TimeoutError):
            what = f"{self.address} does not answer: {detail}."
            remedy = "A runner retries. Check that the server is running."
        else:
            what = f"{self.address} refused: {detail}."
            remedy = "Check the keys that begin with the projection's name."
        return TargetUnavailable(what, remedy, address=self.address, detail=detail)

    def close(self) -> None:
        """See the port."""
        self._client.close()


def hash_field(key: Sequence[str], row: Mapping[str, Any]) -> str:
    """The field of a row: a key of one text is that text; any other is a JSON array of its values."""
    values = [row[name] for name in key]
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return msgspec.json.encode(values).decode()
