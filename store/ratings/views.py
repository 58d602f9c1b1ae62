"""Screens about ratings: all of a listing's, the forms, and the moderators' queue of flags."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from store.accounts.models import User
from store.accounts.publishers import require_role
from store.catalog.models import Listing
from store.errors import DomainError
from store.keyset import newest_first
from store.ratings import pages, reading, votes
from store.ratings import rating as acts
from store.ratings.errors import InvalidRating
from store.ratings.forms import FlagForm, RateForm, ReplyForm
from store.ratings.models import Flag, Rating


def _listing(request: HttpRequest, public_id: str) -> Listing:
    reachable = Listing.objects.reachable_by(request.user).select_related("publisher", "live_revision")
    return get_object_or_404(reachable, public_id=public_id)


def _rating(request: HttpRequest, public_id: str) -> Rating:
    """A visible rating of a listing that the person can see."""
    found = get_object_or_404(Rating.objects.select_related("listing__publisher", "version", "user"), public_id=public_id)
    if not found.is_visible:
        raise Http404
    _listing(request, found.listing.public_id)
    return found


def _back(listing: Listing) -> HttpResponse:
    response = redirect("pages:listing", listing.publisher.slug, listing.slug)
    response["Location"] += "#ratings"
    return response


def _refused(form: forms.Form, error: DomainError) -> None:
    """Puts what an act says where the person can mend it; what no field can mend becomes a page."""
    if error.param not in form.fields:
        raise error
    form.add_error(error.param, str(error))


@require_GET
def all_ratings(request: HttpRequest, public_id: str) -> HttpResponse:
    listing = _listing(request, public_id)
    offered = reading.offer(listing)
    question = reading.understand(request.GET, offered)
    page = reading.read(listing, question, before=request.GET.get("before", ""))
    summary = pages.summary_of(listing)
    role = listing.publisher.role_of(request.user)
    context = {
        "listing": listing,
        "page": page,
        "question": question,
        "offered": offered,
        "orders": reading.ORDER_NAMES.items(),
        "summary": summary,
        "distribution": pages.distribution(summary),
        "voted": pages.voted(page.rows, request.user),
        "may_reply": role in acts.REPLYING,
        "may_vote": request.user.is_authenticated and role is None,
    }
    return render(request, "ratings/all.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def rate(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    listing = _listing(request, public_id)
    acts.require_may_rate(request.user, listing)
    mine = pages.mine(listing, request.user)
    initial = {"stars": mine.stars, "text": mine.text} if mine else None
    form = RateForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            given = acts.rate(request.user, listing, **form.cleaned_data, language=get_language() or "en")
        except DomainError as error:
            _refused(form, error)
        else:
            if given.is_visible:
                messages.success(request, _("Your rating is shown. Thank you."))
            else:
                messages.warning(request, _("Your rating is kept. A moderator hid it, so nobody else sees it."))
            return _back(listing)
    context = {"listing": listing, "form": form, "mine": mine, "past": pages.history(mine) if mine else ()}
    return render(request, "ratings/rate.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def withdraw(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    own = Rating.objects.select_related("listing__publisher").filter(user=request.user, withdrawn_at=None)
    mine = get_object_or_404(own, public_id=public_id)
    acts.withdraw(request.user, mine)
    messages.success(request, _("Your rating is withdrawn."))
    return _back(mine.listing)


@login_required
@require_http_methods(["GET", "POST"])
def reply(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    rating = _rating(request, public_id)
    require_role(request.user, rating.listing.publisher, *acts.REPLYING)
    written = getattr(rating, "reply", None)
    form = ReplyForm(request.POST or None, initial={"text": written.text} if written else None)
    if request.method == "POST" and form.is_valid():
        try:
            acts.reply(request.user, rating, text=form.cleaned_data["text"])
        except DomainError as error:
            _refused(form, error)
        else:
            messages.success(request, _("Your reply is shown."))
            return _back(rating.listing)
    return render(request, "ratings/reply.html", {"rating": rating, "form": form}, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def flag(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    rating = _rating(request, public_id)
    form = FlagForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        acts.flag(request.user, rating, reason=form.cleaned_data["reason"])
        messages.success(request, _("Thank you. A moderator will look at it."))
        return _back(rating.listing)
    return render(request, "ratings/flag.html", {"rating": rating, "form": form}, status=422 if form.errors else 200)


@login_required
@require_POST
def helpful(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    rating = _rating(request, public_id)
    if (vote := request.POST.get("vote")) not in ("yes", "no"):
        raise InvalidRating(_("Say whether the rating helps."), param="vote")
    act = votes.vote if vote == "yes" else votes.take_back
    act(request.user, rating)
    page = request.POST.get("page", "")
    if url_has_allowed_host_and_scheme(page, allowed_hosts={request.get_host()}):
        return redirect(f"{page}#{rating.public_id}")
    return _back(rating.listing)


@login_required
@require_GET
def flags(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    if not request.user.is_reviewer:
        raise Http404
    waiting = Flag.objects.filter(state=Flag.State.OPEN, rating__withdrawn_at=None)
    waiting = waiting.select_related("rating__listing__publisher", "rating__version", "user").prefetch_related("rating__past__version")
    return render(request, "ratings/flags.html", {"page": newest_first(waiting, before=request.GET.get("before", ""))})


@login_required
@require_POST
def settle_flag(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    if not request.user.is_reviewer:
        raise Http404
    found = get_object_or_404(Flag, public_id=public_id)
    if (decision := request.POST.get("decision")) not in ("uphold", "dismiss"):
        raise InvalidRating(_("Choose what becomes of the rating: hide it, or leave it as it is."), param="decision")
    acts.settle_flag(request.user, found, uphold=decision == "uphold")
    messages.success(request, _("Decided."))
    return redirect("ratings:flags")
