"""Preference data sets made of consented feedback, and how what is in them is taken out again.

A set is one of the publisher's files and holds texts alone; whose they are stands in the pairs, for the store. Who withdraws, or
deletes a conversation, is taken out of every set: the file is written anew, and is gone when nothing is left. What a run has
already learned cannot be taken out of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts import audit
from store.accounts.models import Membership, User
from store.accounts.publishers import require_role
from store.catalog import artifacts
from store.catalog.models import Listing, Version
from store.errors import DomainError
from store.jobs import files, withdrawing
from store.jobs.models import Job, UploadedFile
from store.playground import feedback
from store.playground.feedback import Preference
from store.playground.models import Conversation, FeedbackConsent, Message, PreferencePair, PreferenceSet


class NoPreferences(DomainError):
    code = "no_preferences"
    message = _("There are not yet preferences of enough different people. Wait until more of them share what they think.")


def make(user: User, listing: Listing) -> PreferenceSet:
    """A new file with all preferences that may be shown now. Raises NotAllowed, NoPreferences and what keeping a file raises."""
    require_role(user, listing.publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    found = feedback.of_listing(listing)
    if not found.preferences or not found.may_show_texts:
        raise NoPreferences
    name = f"preferences-{listing.slug}-{timezone.localtime():%Y%m%d-%H%M%S}.jsonl"
    with transaction.atomic():  # with the file: without its pairs nobody could be taken out of it
        file = files.save(user, listing.publisher, name=name, stream=_written(found.preferences), purpose=UploadedFile.Purpose.FINETUNE)
        made = PreferenceSet.objects.create(listing=listing, file=file, digests=[file.sha256], created_by=user)
        PreferencePair.objects.bulk_create(
            PreferencePair(set=made, user_id=its.question.user_id, chosen=its.chosen, rejected=its.rejected) for its in found.preferences
        )
        audit.record(user, "preferences.make", made.public_id, listing=listing.full_name, pairs=len(found.preferences))
    _leave_out_withdrawn(made)
    return made


def used_in(sets: Iterable[PreferenceSet]) -> dict[str, list[tuple[Job, list[Version]]]]:
    """By the set's public id, the fine-tunes that were begun with it and the versions made of them. Two queries."""
    by_digest = {digest: its for its in sets for digest in its.digests}
    jobs = list(Job.objects.filter(kind=Job.Kind.FINETUNE, params__file__in=list(by_digest)).select_related("publisher").order_by("pk"))
    made: dict[str, list[Version]] = {}
    for version in Version.objects.filter(made_by__in=[job.public_id for job in jobs]).select_related("listing__publisher"):
        made.setdefault(version.made_by, []).append(version)
    found: dict[str, list[tuple[Job, list[Version]]]] = {}
    for job in jobs:
        its = by_digest[job.params["file"]]
        if job.publisher_id == its.file.publisher_id:
            found.setdefault(its.public_id, []).append((job, made.get(job.public_id, [])))
    return found


# ---------------------------------------------------------------- agreeing and withdrawing


def agree(user: User) -> None:
    """From now on publishers see what the person judges or asks again."""
    if FeedbackConsent.objects.get_or_create(user=user)[1]:
        audit.record(user, "feedback.agree", user.public_id)


@transaction.atomic
def withdraw(user: User) -> None:
    """Publishers see nothing of it any more, and it is taken out of every data set."""
    if FeedbackConsent.objects.filter(user=user).delete()[0]:
        audit.record(user, "feedback.withdraw", user.public_id)
    _take_out(PreferencePair.objects.filter(user=user))


@transaction.atomic
def forget(conversation: Conversation) -> None:
    """Takes a conversation that is about to be deleted out of every data set."""
    _take_out(PreferencePair.objects.filter(chosen__conversation=conversation))


def _leave_out_withdrawn(made: PreferenceSet) -> None:
    """Of who withdrew while the set was being made."""
    with transaction.atomic():
        agreed = FeedbackConsent.objects.values("user")
        _take_out(PreferencePair.objects.filter(set=made).exclude(user__in=agreed))


def _take_out(pairs: models.QuerySet[PreferencePair]) -> None:
    touched = list(PreferenceSet.objects.select_for_update().filter(pk__in=pairs.values("set")).select_related("file"))
    pairs.delete()
    for its in touched:
        _write_anew(its)


def _write_anew(its: PreferenceSet) -> None:
    withdrawing.withdraw(its.file.publisher, its.digests)
    left = [
        preference for pair in its.pairs.select_related("chosen__conversation", "rejected") if (preference := _of_pair(pair)) is not None
    ]
    if not left:
        its.file.delete()  # and with it the set
        return
    sha256, size_bytes = artifacts.put_blob(_written(left))
    UploadedFile.objects.filter(pk=its.file_id).update(sha256=sha256, size_bytes=size_bytes)
    PreferenceSet.objects.filter(pk=its.pk).update(digests=[*its.digests, sha256])


def _of_pair(pair: PreferencePair) -> Preference | None:
    """The pair as a preference once more, from its conversation."""
    conversation = pair.chosen.conversation
    messages = Message.objects.filter(conversation=conversation).select_related("request").order_by("pk")
    for question in feedback.questions_of(conversation, messages):
        if pair.chosen in question.answers and pair.rejected in question.answers:
            return Preference(question, pair.chosen, pair.rejected)
    return None


def _written(preferences: Sequence[Preference]) -> io.BytesIO:
    lines = [json.dumps(preference.record(), ensure_ascii=False) + "\n" for preference in preferences]
    return io.BytesIO("".join(lines).encode())
