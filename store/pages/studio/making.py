"""Making something new: a publisher, a GPT from instructions, a further version. Each view calls one act."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from store.accounts import publishers
from store.accounts.models import Publisher, User
from store.catalog import publishing
from store.catalog.models import Listing, Version
from store.catalog.revisions import EDITORS
from store.errors import DomainError
from store.pages.studio import forms
from store.pages.studio.access import form_view, own_listing, own_publisher, person, to_dashboard


@login_required
@form_view
def new_publisher(request: HttpRequest) -> HttpResponse:
    form = forms.PublisherForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = publishers.create_publisher(person(request), **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("pages:studio_publisher", made.slug)
    return render(request, "pages/studio/new_publisher.html", {"form": form}, status=422 if form.errors else 200)


@login_required
@form_view
def new_gpt(request: HttpRequest, slug: str) -> HttpResponse:
    """A prompt GPT from nothing: its listing and its first version, or neither."""
    owner = own_publisher(request, slug, *EDITORS)
    form = forms.NewGPTForm(request.POST or None, user=person(request), initial={"base": request.GET.get("base", "")})
    if request.method == "POST" and "preview" not in request.POST and form.is_valid():
        try:
            made = _create_gpt(person(request), owner, form)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return to_dashboard(made)
    context = {"form": form, "publisher": owner, "mode": "new"}
    return render(request, "pages/studio/new_gpt.html", context, status=422 if form.errors else 200)


def _create_gpt(user: User, owner: Publisher, form: forms.NewGPTForm) -> Listing:
    with transaction.atomic():
        made = create_listing(user, owner, form)
        publishing.create_prompt_version(user, made, number="1.0.0", base=form.bases[form.cleaned_data["base"]], **form.prompt())
    return made


def create_listing(user: User, owner: Publisher, form: forms.NewGPTForm | forms.NewFolderForm) -> Listing:
    """What of a new GPT does not depend on its first version."""
    values, prices = form.cleaned_data, form.prices()
    chosen: dict[str, Any] = {
        name: values[name] for name in ("slug", "use_cases", "licence", "licence_name", "licence_url", "languages")
    } | prices
    return publishing.create_listing(user, owner, texts=form.texts(), **chosen)


@login_required
@form_view
def new_version(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """A further prompt version, which begins as a copy of the newest one."""
    found = own_listing(request, publisher, slug, *EDITORS)
    newest = found.versions.filter(kind=Version.Kind.PROMPT).select_related("base").first()
    initial = forms.prompt_of(newest) if newest else {}
    initial["number"] = next_number(newest.number if newest else "")
    form = forms.VersionForm(request.POST or None, user=person(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            publishing.create_prompt_version(
                person(request),
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
            return to_dashboard(found)
    context = {"form": form, "listing": found, "publisher": found.publisher, "version": None}
    return render(request, "pages/studio/version.html", context, status=422 if form.errors else 200)


def next_number(number: str) -> str:
    """The number after this one: 1.2.0 → 1.3.0."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.\d+", number)
    return f"{match[1]}.{int(match[2]) + 1}.0" if match else "1.0.0"
