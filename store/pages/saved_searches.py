"""Looks into the catalogue that a person keeps: saved as their address, in one form whatever order it was written in."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from store.accounts.models import User
from store.catalog.models import SavedSearch
from store.errors import Conflict, DomainError, NotFound
from store.pages.exploring import Exploration, all_use_cases

MOST = 30  # of one person


class NothingToSave(DomainError):
    code = "nothing_to_save"
    status = 422
    message = _("Search for something or set a filter first: the whole catalogue needs no saving.")


class TooLongToSave(DomainError):
    code = "search_too_long"
    status = 422
    message = _("This search is too long to be saved. Use fewer words or filters, then save it.")


class EnoughSaved(Conflict):
    code = "enough_saved"
    message = _("You have saved as many searches as one person can. Remove one, then save this one.")


@dataclass(frozen=True)
class Saved:
    public_id: str
    address: str  # with its "?"
    exploration: Exploration


def of(user: User | AnonymousUser) -> list[Saved]:
    """The person's saved searches, the newest first; none for a visitor."""
    if not isinstance(user, User):
        return []
    rows = list(SavedSearch.objects.filter(user=user)[:MOST])
    use_cases = all_use_cases() if rows else {}  # for all their titles
    return [Saved(row.public_id, f"?{row.address}", Exploration.of(QueryDict(row.address), use_cases)) for row in rows]


def save(user: User, address: str) -> SavedSearch:
    """The search at this query string, kept once however often it is saved. Raises NothingToSave, TooLongToSave, EnoughSaved."""
    exploration = Exploration.of(QueryDict(address))
    if not exploration.can_be_saved:
        raise NothingToSave
    wanted = exploration.kept_address
    if len(wanted) > SavedSearch.MAX_CHARS:
        raise TooLongToSave
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)  # one after the other, so that MOST is the most
        if (kept := SavedSearch.objects.filter(user=user, address=wanted).first()) is not None:
            return kept
        if SavedSearch.objects.filter(user=user).count() >= MOST:
            raise EnoughSaved
        return SavedSearch.objects.create(user=user, address=wanted)


def forget(user: User, public_id: str) -> None:
    """Removes one of the person's own. Raises NotFound for any other."""
    if not SavedSearch.objects.filter(user=user, public_id=public_id).delete()[0]:
        raise NotFound


@login_required
@require_POST
def save_search(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    kept = save(request.user, request.POST.get("address", "").removeprefix("?"))
    return redirect(f"{reverse('pages:explore')}?{kept.address}#saved")


@login_required
@require_POST
def forget_search(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    forget(request.user, public_id)
    return redirect(f"{reverse('pages:explore')}#saved")
