"""The key of this installation, and the passwords that only it gives."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path

from filelock import FileLock


def kept_in(folder: Path) -> str:
    """The key kept in `folder`, made once, so that a restart signs nobody out. An empty file counts as none."""
    path = folder / "secret_key"
    if key := _read(path):
        return key
    with FileLock(folder / "secret_key.lock"):  # several processes may start at once
        key = _read(path)
        if not key:
            key = secrets.token_urlsafe(50)
            _write(path, key)
    return key


def derived(secret_key: str, purpose: str) -> str:
    """A password for one purpose: 64 hex digits, from which neither the key nor another password can be told."""
    return hmac.new(secret_key.encode(), purpose.encode(), "sha256").hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _write(path: Path, key: str) -> None:
    """Complete or not at all, and readable for its owner alone from the beginning."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".secret_key.", delete=False) as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
