"""Settings of the test run: the store's own, with a folder and a broker of their own."""

import os
import tempfile

os.environ.setdefault("VAR_DIR", tempfile.mkdtemp(prefix="gpt-store-test-"))
os.environ.setdefault("PLAIN_STATIC", "1")
os.environ.setdefault("LOG_LEVEL", "WARNING")

from store.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
