"""Sharing a conversation by link: what it says at that moment, to be read by whoever has the address, until it is taken back.

A share is a copy, so what is written, edited or regenerated later never gets into it. It holds the messages of the thread and
nothing of the account, and of instructions no more than a conversation does: none.
"""

from __future__ import annotations

import unicodedata

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from store import ratelimit
from store.accounts.models import User
from store.catalog.models import Version
from store.errors import NotFound
from store.generation.errors import SignInNeeded
from store.playground import answers, conversations
from store.playground.errors import BadName, NothingToShare, NotShareable, Revoked, StillAnswering
from store.playground.models import Conversation, Message, Share

DAY_S = 86_400
NAME_CHARS = Share.NAME_CHARS


def live(conversation: Conversation) -> Share | None:
    """The share that its link leads to now."""
    return Share.objects.filter(conversation=conversation, revoked_at=None).first()


def share(conversation: Conversation, *, user: User | object, name: str = "") -> Share:
    """A copy of the thread as it is now, under a new address; the address of an earlier one leads nowhere any more.

    Raises SignInNeeded, BadName, NotShareable, StillAnswering, NothingToShare and TooMany.
    """
    if not isinstance(user, User):
        raise SignInNeeded(_("Sharing takes an account, so that you can take it back from anywhere."))
    name = _checked(name)
    if not Version.objects.usable_by(None).filter(pk=conversation.version_id).exists():
        raise NotShareable
    with transaction.atomic():
        conversation = Conversation.objects.select_for_update(of=("self",)).get(pk=conversation.pk)
        copied = _copied(conversation)
        ratelimit.require(f"shares:{user.pk}", limit=settings.SHARES_PER_DAY, per_s=DAY_S)
        _revoke(conversation)
        fields = {"conversation": conversation, "version_id": conversation.version_id, "title": conversation.title, "name": name}
        return Share.objects.create(user=user, messages=copied, **fields)


def _checked(name: str) -> str:
    """As it is shown to strangers: one line, without what is not seen or turns the direction of what follows."""
    name = " ".join(name.split())
    if len(name) > NAME_CHARS or any(unicodedata.category(character)[0] == "C" for character in name):
        raise BadName(param="name")
    return name


def _copied(conversation: Conversation) -> list[dict[str, str]]:
    """Question and answer by turns, without a question that got none."""
    thread = conversations.thread(conversation)
    if any(answers.is_under_way(message) for message in thread):
        raise StillAnswering
    copied: list[dict[str, str]] = []
    for message in thread:
        text = answers.spoken(message)
        if message.role == Message.Role.ASSISTANT and not text.strip():
            copied.pop()
        else:
            copied.append({"role": message.role, "text": text})
    if not copied:
        raise NothingToShare
    return copied


def revoke(conversation: Conversation) -> None:
    """From now on its address tells nobody what it said. Doing it twice is doing it once."""
    with transaction.atomic():
        _revoke(conversation)


def _revoke(conversation: Conversation) -> None:
    Share.objects.filter(conversation=conversation, revoked_at=None).update(revoked_at=timezone.now(), messages=[], title="", name="")


def find(public_id: str) -> Share:
    """Raises NotFound for what was never shared, and as long as its GPT is suspended; Revoked for what was taken back."""
    found = Share.objects.select_related("version__listing__publisher").filter(public_id=public_id).first()
    if found is None or found.version.state == Version.State.SUSPENDED or found.version.listing.suspended_at is not None:
        raise NotFound
    if found.revoked_at is not None:
        raise Revoked
    return found
