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
os.environ["REDIS_URL"] = ""  # never an operator's broker: tests flush theirs
os.environ["BROKER_URL"] = ""
os.environ["VALKEY_PORT"] = str(_free_port())  # served by the fixture `valkey`

from store.settings import *  # noqa: F403
from store.settings import DATABASES, VAR_DIR

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}  # a file: threads and worker processes share it
