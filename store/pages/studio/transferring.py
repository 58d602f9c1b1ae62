"""Giving a GPT to another publisher: the offer, and the page on which the others answer it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from store.accounts.models import Membership
from store.catalog import transfers
from store.catalog.models import Transfer
from store.errors import DomainError
from store.pages.studio import forms
from store.pages.studio.access import form_view, own_listing, person, to_dashboard

OWNER = Membership.Role.OWNER


@login_required
@form_view
def offer(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """For owners. `revoke` takes back what is open."""
    found = own_listing(request, publisher, slug, OWNER)
    made = transfers.open_offers().filter(listing=found).first()
    if request.method == "POST" and "revoke" in request.POST:
        if made is not None:
            transfers.revoke(person(request), made)
        messages.success(request, _("The offer is taken back."))
        return redirect("pages:studio_transfer", publisher, slug)
    form = forms.TransferForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            transfers.offer(person(request), found, to=form.cleaned_data["to"])
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("It is offered. Nothing changes until an owner there accepts."))
            return redirect("pages:studio_transfer", publisher, slug)
    context = {"form": form, "listing": found, "publisher": found.publisher, "made": made}
    return render(request, "pages/studio/transfer.html", context, status=422 if form.errors else 200)


@login_required
@form_view
def answer(request: HttpRequest, public_id: str) -> HttpResponse:
    """For owners of the publisher that it is offered to."""
    user, made = person(request), transfers.find(person(request), public_id)
    if request.method == "POST" and request.POST.get("answer") == "accept":
        taken = transfers.accept(user, made)
        messages.success(request, _("%(name)s is yours now.") % {"name": taken.full_name})
        return to_dashboard(taken)
    if request.method == "POST":
        transfers.decline(user, made)
        messages.success(request, _("The offer is declined."))
        return redirect("pages:studio")
    is_open = made.state == Transfer.State.OPEN and transfers.open_offers().filter(pk=made.pk).exists()
    context = {"made": made, "is_open": is_open, "is_taker": made.taker.role_of(user) == OWNER}
    return render(request, "pages/studio/transfer_answer.html", context)
