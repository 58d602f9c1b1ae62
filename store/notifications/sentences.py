"""What each kind of notification says, in the language that is active when it is read or sent.

A sentence names its subject, the listing or version it is about; `reason`, where given, is quoted under it as its writer wrote it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.notifications.models import Notification

Kind = Notification.Kind

SENTENCES: dict[str, Promise] = {
    Kind.SUBMISSION_APPROVED: _("%(subject)s was approved."),
    Kind.SUBMISSION_CHANGES: _("The reviewer of %(subject)s asks for changes."),
    Kind.SUBMISSION_REJECTED: _("%(subject)s was rejected."),
    Kind.SUBMISSION_CHECKS_FAILED: _("%(subject)s did not pass the automated checks."),
    Kind.VERSION_SUSPENDED: _("%(subject)s was suspended: nobody can use it until it is restored."),
    Kind.VERSION_RESTORED: _("%(subject)s can be used again."),
    Kind.JOB_SUCCEEDED: _("The job %(subject)s is finished."),
    Kind.JOB_FAILED: _("The job %(subject)s failed."),
    Kind.RATING_RECEIVED: _("%(subject)s was rated: %(stars)s of 5 stars."),
    Kind.RATING_REPLY: _("%(publisher)s replied to your rating of %(subject)s."),
    Kind.GPT_PUBLISHED: _("%(publisher)s, whom you follow, published a new GPT: %(subject)s."),
    Kind.VERSION_PUBLISHED: _("%(subject)s is a new version of a GPT that you follow."),
    Kind.ACCESS_RENEWED: _("Your access to %(subject)s was renewed for 30 days, as you had asked."),
    Kind.ACCESS_ENDED: _("Your access to %(subject)s has ended. It costs its price per token again."),
    Kind.TRANSFER_OFFERED: _("%(publisher)s offers you %(subject)s. It becomes yours only when an owner accepts."),
    Kind.TRANSFER_ANSWERED: _("The offer of %(subject)s to %(publisher)s was answered: %(answer)s."),
    Kind.BADGE_AT_RISK: _("The proof of the domain %(subject)s is not found any more. If it stays away, the badge goes on %(until)s."),
    Kind.BADGE_LOST: _("The badge of the domain %(subject)s is gone: its proof was not found for several days."),
}
ANSWERS = {"accepted": _("accepted"), "declined": _("declined")}


def sentence(notification: Notification) -> str:
    """What happened, in one sentence without markup."""
    params = {key: str(value) for key, value in notification.params.items()}
    if (answer := params.get("answer")) in ANSWERS:
        params["answer"] = str(ANSWERS[answer])
    return str(SENTENCES[notification.kind]) % defaultdict(str, params | {"subject": subject(notification.params)})


def subject(params: dict[str, Any]) -> str:
    """What it is about: `subject` itself, else the listing and, where there is one, its version; else the job."""
    if params.get("subject"):
        return str(params["subject"])
    listing, version = str(params.get("listing", "")), str(params.get("version", ""))
    if listing and version:
        return version if "/" in version else f"{listing}@{version}"
    return listing or version or str(params.get("name") or params.get("job", ""))


def quote(notification: Notification) -> str:
    """The reason or text that a person wrote, as they wrote it."""
    return str(notification.params.get("reason") or notification.params.get("text") or "")
