"""Connections to Valkey: one synchronous and one asynchronous client per process (and event loop)."""

from __future__ import annotations

import asyncio
from functools import cache
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.conf import settings


@cache
def client() -> redis.Redis:
    """The process's synchronous client; its pool is thread-safe. Replies are text."""
    return redis.Redis.from_url(settings.REDIS_URL, decode_responses=True, socket_timeout=10, socket_connect_timeout=3)


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()


def async_client() -> redis.asyncio.Redis:
    """The running event loop's client: connections cannot be shared between loops. Replies are text."""
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, decode_responses=True, socket_timeout=30, socket_connect_timeout=3, max_connections=2000
        )
    return _by_loop[loop]
