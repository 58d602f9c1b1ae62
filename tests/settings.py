"""Settings of the test run: the store's own, with a folder, a broker and a database of their own."""

import os
import socket
import tempfile


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


os.environ["VAR_DIR"] = tempfile.mkdtemp(prefix="gpt-store-test-")  # one for each xdist worker too
os.environ.setdefault("PLAIN_STATIC", "1")
os.environ.setdefault("LOG_LEVEL", "WARNING")
os.environ["DATABASE_URL"] = f"sqlite:///{os.environ['VAR_DIR']}/store.sqlite3"  # never an operator's database
os.environ["REDIS_URL"] = ""  # never an operator's broker: tests flush theirs
os.environ["BROKER_URL"] = ""
os.environ["VALKEY_PORT"] = str(_free_port())  # served by the fixture `valkey`

from store.settings import *  # noqa: E402, F403
from store.settings import DATABASES, VAR_DIR  # noqa: E402

ARENA_LEAST_CONTENDERS = 2  # worlds of tests are small
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
if os.environ.get("TEST_POSTGRESQL"):
    POSTGRESQL_PORT = _free_port()  # served by the fixture `postgresql`
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": POSTGRESQL_PORT,
            "USER": "postgres",
            "NAME": "postgres",
        }
    }
else:
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}  # a file: threads and worker processes share it
