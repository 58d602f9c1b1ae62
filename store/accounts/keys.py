"""API keys: made once, shown once, kept as a hash, revoked for good."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts import audit
from store.accounts.models import ApiKey, User
from store.errors import Conflict, DomainError, NotFound

KEYS_PER_USER = 50  # that are not revoked
LAST_USED_EVERY = timedelta(minutes=5)  # a busy key writes its row this often at most

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SECRET = re.compile(r"(gs_[0-9A-Za-z]{10})_[0-9A-Za-z]{40}")


class InvalidKeyName(DomainError):
    code = "invalid_key_name"
    message = _("Give the key a name of 1 to 60 characters, so that you recognise it later.")


class TooManyKeys(Conflict):
    code = "too_many_keys"
    message = _("You have reached the largest number of API keys. Revoke one that you no longer use.")


def create_key(user: User, *, name: str) -> tuple[ApiKey, str]:
    """A new key and its secret, `gs_<prefix>_<random>`, which can't be shown again."""
    name = name.strip()
    if not 1 <= len(name) <= 60 or not name.isprintable():
        raise InvalidKeyName(param="name")

    prefix = "gs_" + _random(10)
    secret = f"{prefix}_{_random(40)}"
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if ApiKey.objects.filter(user=user, revoked_at__isnull=True).count() >= KEYS_PER_USER:
            raise TooManyKeys
        key = ApiKey.objects.create(user=user, name=name, prefix=prefix, digest=_digest(secret))
        audit.record(user, "api_key.create", key.public_id)
    return key, secret


def revoke_key(user: User, key: ApiKey) -> None:
    """From now on the key opens nothing. For its owner, and for staff who may change keys. Revoking it twice is no error."""
    if key.user_id != user.pk and not user.has_perm("accounts.change_apikey"):
        raise NotFound
    with transaction.atomic():
        if ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=timezone.now()):
            audit.record(user, "api_key.revoke", key.public_id)


def find_key(secret: str) -> ApiKey | None:
    """The key this secret belongs to, with its user, unless it was revoked or the user is no longer active."""
    match = _SECRET.fullmatch(secret)
    if match is None:
        return None
    key = ApiKey.objects.select_related("user").filter(prefix=match[1], revoked_at__isnull=True, user__is_active=True).first()
    if key is None or not hmac.compare_digest(key.digest, _digest(secret)):
        return None
    now = timezone.now()
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    if key.last_used_at is None or key.last_used_at < now - LAST_USED_EVERY:
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
    return key


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _digest(secret: str) -> str:
    """Plain sha256: the secret has 238 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
