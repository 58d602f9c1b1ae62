"""The publisher's studio: what I have, what is wanted of me, and the acts on it. Each view calls one act."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from store.accounts import publishers
from store.accounts.models import Publisher, User
from store.catalog import publishing
from store.catalog.models import Listing, Version
from store.catalog.revisions import EDITORS
from store.errors import DomainError, NotFound
from store.moderation import submissions
from store.moderation.models import Submission
from store.pages import studio_forms as forms

form_view = require_http_methods(["GET", "HEAD", "POST"])


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every view here asks for a signed-in person
    return request.user


def _publisher(request: HttpRequest, slug: str, *roles: str) -> Publisher:
    """The publisher, for its members only: a stranger learns nothing."""
    found = Publisher.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound
    publishers.require_role(request.user, found, *roles)
    return found


def _listing(request: HttpRequest, publisher: str, slug: str, *roles: str) -> Listing:
    owner = _publisher(request, publisher, *roles)
    found = Listing.objects.for_cards().filter(publisher=owner, slug=slug).first()
    if found is None:
        raise NotFound
    return found


def _to(listing: Listing) -> HttpResponse:
    return redirect("pages:studio_listing", listing.publisher.slug, listing.slug)


def _with_standing(owners: list[Publisher]) -> list[Listing]:
    """Listings of these publishers, each with its versions and submissions, newest first."""
    return list(
        Listing.objects.for_cards()
        .filter(publisher__in=owners)
        .prefetch_related("versions", "revisions__texts", Prefetch("submissions", Submission.objects.order_by("-pk")))
        .order_by("-pk")
    )


# ---------------------------------------------------------------- what I have


@login_required
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    owners = list(_user(request).publishers.all())
    if len(owners) == 1:
        return redirect("pages:studio_publisher", owners[0].slug)
    listings = _with_standing(owners)
    groups = [{"publisher": owner, "listings": [row for row in listings if row.publisher_id == owner.pk]} for owner in owners]
    return render(request, "pages/studio/overview.html", {"groups": groups})


@login_required
@require_safe
def publisher(request: HttpRequest, slug: str) -> HttpResponse:
    owner = _publisher(request, slug)
    context = {
        "publisher": owner,
        "listings": _with_standing([owner]),
        "role": owner.role_of(request.user),
        "members": owner.memberships.select_related("user").order_by("pk"),
        "others": _user(request).publishers.exclude(pk=owner.pk),
    }
    return render(request, "pages/studio/publisher.html", context)


@login_required
@require_safe
def listing(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug)
    return render(request, "pages/studio/listing.html", _dashboard(request, found))


def _dashboard(request: HttpRequest, listing: Listing, **bound: Any) -> dict[str, Any]:
    """The context of a listing's page in the studio; `bound` replaces a fresh form by the one that was refused."""
    role = listing.publisher.role_of(request.user)
    latest = listing.submissions.prefetch_related("checks", "decisions").order_by("-pk").first()
    return {
        "listing": listing,
        "publisher": listing.publisher,
        "role": role,
        "may_edit": role in EDITORS,
        "versions": list(listing.versions.select_related("base__listing__publisher")),
        "draft_texts": listing.revisions.filter(state="draft").first(),
        "submission": latest,
        "decision": next(iter(latest.decisions.all()), None) if latest else None,
        "prices_form": forms.PricesForm(initial=forms.prices_of(listing)),
        "submission_form": forms.SubmissionForm(initial={"visibility": "unlisted" if listing.visibility == "unlisted" else "public"}),
        **bound,
    }


# ---------------------------------------------------------------- making


@login_required
@form_view
def new_publisher(request: HttpRequest) -> HttpResponse:
    form = forms.PublisherForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = publishers.create_publisher(_user(request), **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("pages:studio_publisher", made.slug)
    return render(request, "pages/studio/new_publisher.html", {"form": form}, status=422 if form.errors else 200)


@login_required
@form_view
def new_gpt(request: HttpRequest, slug: str) -> HttpResponse:
    """A prompt GPT from nothing: its listing and its first version, or neither."""
    owner = _publisher(request, slug, *EDITORS)
    form = forms.NewGPTForm(request.POST or None, user=_user(request), initial={"base": request.GET.get("base", "")})
    if request.method == "POST" and form.is_valid():
        try:
            made = _create_gpt(_user(request), owner, form)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return _to(made)
    context = {"form": form, "publisher": owner, "mode": "new"}
    return render(request, "pages/studio/new_gpt.html", context, status=422 if form.errors else 200)


def _create_gpt(user: User, owner: Publisher, form: forms.NewGPTForm) -> Listing:
    values, prices = form.cleaned_data, form.prices()
    with transaction.atomic():
        made = publishing.create_listing(
            user,
            owner,
            slug=values["slug"],
            texts=form.texts(),
            use_cases=values["use_cases"],
            licence=values["licence"],
            languages=values["languages"],
            input_price_micro=prices["input_price_micro"],
            output_price_micro=prices["output_price_micro"],
        )
        publishing.create_prompt_version(user, made, number="1.0.0", base=form.bases[values["base"]], **form.prompt())
    return made


@login_required
@form_view
def new_version(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """A further prompt version, which begins as a copy of the newest one."""
    found = _listing(request, publisher, slug, *EDITORS)
    newest = found.versions.filter(kind=Version.Kind.PROMPT).select_related("base").first()
    initial = forms.prompt_of(newest) if newest else {}
    initial["number"] = next_number(newest.number if newest else "")
    form = forms.VersionForm(request.POST or None, user=_user(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            publishing.create_prompt_version(
                _user(request),
                found,
                number=values["number"],
                base=form.bases[values["base"]],
                change_log=values["change_log"],
                **form.prompt(of=newest),
            )
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return _to(found)
    context = {"form": form, "listing": found, "publisher": found.publisher, "version": None}
    return render(request, "pages/studio/version.html", context, status=422 if form.errors else 200)


def next_number(number: str) -> str:
    """The number after this one: 1.2.0 → 1.3.0."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.\d+", number)
    return f"{match[1]}.{int(match[2]) + 1}.0" if match else "1.0.0"


# ---------------------------------------------------------------- changing


@login_required
@form_view
def edit_version(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    version = _version(found, number)
    initial = {**forms.prompt_of(version), "number": version.number, "change_log": version.change_log}
    form = forms.VersionForm(request.POST or None, user=_user(request), initial=initial)
    form.fields["number"].disabled = True
    del form.fields["base"]  # what a version builds on is decided when it is made
    if version.kind != Version.Kind.PROMPT:
        del form.fields["instructions"]
    if request.method == "POST" and form.is_valid():
        try:
            publishing.edit_version(_user(request), version, **_edited(form, version))
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return _to(found)
    context = {"form": form, "listing": found, "publisher": found.publisher, "version": version}
    return render(request, "pages/studio/version.html", context, status=422 if form.errors else 200)


def _edited(form: forms.VersionForm, version: Version) -> dict[str, Any]:
    form.cleaned_data.setdefault("instructions", "")
    fields = {**form.prompt(of=version), "change_log": form.cleaned_data["change_log"]}
    return {name: value for name, value in fields.items() if name != "instructions" or name in form.fields}


def _version(listing: Listing, number: str) -> Version:
    found = listing.versions.filter(number=number).select_related("base", "listing__publisher").first()
    if found is None:
        raise NotFound
    return found


@login_required
@form_view
def edit_texts(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    form = forms.TextsForm(request.POST or None, initial=forms.texts_of(found))
    if request.method == "POST" and form.is_valid():
        try:
            publishing.edit_texts(_user(request), found, texts=form.texts())
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The texts are saved as a draft. They change in the store when a reviewer has approved them."))
            return _to(found)
    context = {"form": form, "listing": found, "publisher": found.publisher}
    return render(request, "pages/studio/texts.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def set_prices(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    form = forms.PricesForm(request.POST)
    if not form.is_valid():
        return render(request, "pages/studio/listing.html", _dashboard(request, found, prices_form=form), status=422)
    publishing.set_prices(_user(request), found, **form.prices())
    messages.success(request, _("The prices hold for every request from now on."))
    return _to(found)


@login_required
@require_POST
def set_permissions(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    allowed = {name: name in request.POST for name in ("allow_finetune", "allow_download")}
    publishing.set_permissions(_user(request), found, **allowed)
    messages.success(request, _("Saved."))
    return _to(found)


@login_required
@require_POST
def set_visibility(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    publishing.set_visibility(_user(request), found, visibility=request.POST.get("visibility", ""))
    messages.success(request, _("Saved."))
    return _to(found)


@login_required
@require_POST
def make_current(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    publishing.make_current(_user(request), found, _version(found, number))
    messages.success(request, _("Version %(number)s is the current one now.") % {"number": number})
    return _to(found)


@login_required
@require_POST
def delete_draft(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    publishing.delete_draft(_user(request), _version(found, number))
    messages.success(request, _("The draft of version %(number)s is deleted.") % {"number": number})
    return _to(found)


# ---------------------------------------------------------------- review


@login_required
@require_POST
def submit(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """Hands in the version named by `version`, the draft texts when `texts` is set, or both."""
    found = _listing(request, publisher, slug, *EDITORS)
    form = forms.SubmissionForm(request.POST)
    if form.is_valid():
        version = _version(found, request.POST["version"]) if request.POST.get("version") else None
        revision = found.revisions.filter(state="draft").first() if request.POST.get("texts") else None
        try:
            submissions.submit(_user(request), found, version=version, revision=revision, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Submitted. You are told here and by e-mail what a reviewer decides."))
            return _to(found)
    return render(request, "pages/studio/listing.html", _dashboard(request, found, submission_form=form), status=422)


@login_required
@require_POST
def withdraw(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = _listing(request, publisher, slug, *EDITORS)
    submission = found.submissions.filter(state__in=Submission.OPEN).first()
    if submission is None:
        raise NotFound
    submissions.withdraw(_user(request), submission)
    messages.success(request, _("The submission is withdrawn. Make a new version to submit again."))
    return _to(found)
