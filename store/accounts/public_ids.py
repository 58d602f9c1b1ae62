"""Public ids: a readable prefix and 20 random characters, what URLs and the API show instead of database keys."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def new_public_id(prefix: str) -> str:
    """For example `lst_7h2k…`: 100 random bits."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


class PublicIdField(models.CharField):
    """A unique, immutable id made on first save; `prefix` names the kind of row."""

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        self.prefix = prefix
        kwargs.update(max_length=40, unique=True, editable=False)
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for key in ("max_length", "unique", "editable"):
            kwargs.pop(key, None)
        kwargs["prefix"] = self.prefix
        return name, path, args, kwargs

    def get_default(self) -> str:
        return new_public_id(self.prefix)
