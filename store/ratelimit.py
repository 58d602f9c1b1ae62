"""A rate limiter that is atomic under any number of web processes: the generic cell rate algorithm as one Lua script in Valkey.

DRF's throttles read, count and write in three steps, so parallel requests slip through. The algorithm (ITU-T I.371) keeps
one number per key, the theoretical arrival time of the next request that would be in rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from store.errors import TooMany
from store.valkey import client

_GCRA = """
local now_pair = redis.call('TIME')
local now = tonumber(now_pair[1]) + tonumber(now_pair[2]) / 1e6
local interval = tonumber(ARGV[2]) / tonumber(ARGV[1])
local burst = interval * tonumber(ARGV[1])
local cost = interval * tonumber(ARGV[3])
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local new_arrival = arrival + cost
local wait = new_arrival - burst - now
if wait > 0 then
  return {0, tostring(math.max(0, math.floor((burst - (arrival - now)) / interval))), tostring(wait)}
end
if cost > 0 then redis.call('SET', KEYS[1], tostring(new_arrival), 'PX', math.ceil((new_arrival - now) * 1000) + 1) end
return {1, tostring(math.floor((burst - (new_arrival - now)) / interval)), '0'}
"""


_GIVE_BACK = """
local now_pair = redis.call('TIME')
local now = tonumber(now_pair[1]) + tonumber(now_pair[2]) / 1e6
local arrival = tonumber(redis.call('GET', KEYS[1]) or now) - tonumber(ARGV[2]) / tonumber(ARGV[1]) * tonumber(ARGV[3])
if arrival <= now then return redis.call('DEL', KEYS[1]) end
return redis.call('SET', KEYS[1], tostring(arrival), 'PX', math.ceil((arrival - now) * 1000) + 1)
"""


@dataclass(frozen=True)
class Allowance:
    """What a key has left: `remaining` more at once; when refused, `retry_after_s` until `cost` fits."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float


def take(key: str, *, limit: int, per_s: float, cost: int = 1) -> Allowance:
    """Takes `cost` from the allowance of `limit` per `per_s` seconds under `key`, all or nothing; a `cost` of 0 only looks."""
    allowed, remaining, wait = client().eval(_GCRA, 1, f"ratelimit:{key}", limit, per_s, cost)
    return Allowance(allowed=bool(allowed), limit=limit, remaining=int(float(remaining)), retry_after_s=float(wait))


def give_back(key: str, *, limit: int, per_s: float, cost: int = 1) -> None:
    """Undoes one `take` of the same allowance: what it was for has not begun."""
    client().eval(_GIVE_BACK, 1, f"ratelimit:{key}", limit, per_s, cost)


def require(key: str, *, limit: int, per_s: float, cost: int = 1) -> Allowance:
    """As `take`, but raises TooMany when refused."""
    allowance = take(key, limit=limit, per_s=per_s, cost=cost)
    if not allowance.allowed:
        raise TooMany(retry_after_s=allowance.retry_after_s)
    return allowance
