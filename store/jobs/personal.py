"""What the jobs hold of a person."""

from __future__ import annotations

from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.jobs.models import Job

_PUBLISHED = _("What you made for a publisher, which it has published or may publish: versions, texts and files.")
HOLDINGS = (
    Holding("jobs.Upload", "created_by", hidden=frozenset({"pieces"})),
    Holding("jobs.UploadedFile", "created_by", where=Q(publisher__isnull=True), part="own"),
    Holding("jobs.UploadedFile", "created_by", where=Q(publisher__isnull=False), part="of_publishers", kept=_PUBLISHED),
    Holding("jobs.ModelFolder", "created_by", kept=_PUBLISHED),
    Holding("jobs.Job", "created_by", kept=_("Which jobs ran, and what they cost."), hidden=frozenset({"claim", "worker", "error_detail"})),
)
_ENDS_BY_ITSELF = (Job.State.WAITING, Job.State.QUEUED, Job.State.RUNNING)


def is_under_way(user: User) -> bool:
    """Not what is paused: it could stand in the way for ever, and takes nothing from anybody."""
    return Job.objects.filter(created_by=user, state__in=_ENDS_BY_ITSELF).exists()
