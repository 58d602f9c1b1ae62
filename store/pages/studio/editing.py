"""Changing what is a draft still: a version and the texts. Who saves after somebody else is shown both and saves again."""

from __future__ import annotations

from typing import Any

from django import forms as django_forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from store.accounts.models import AuditEntry
from store.catalog import publishing, revisions, versions
from store.catalog.editing import EditedMeanwhile, Merge, fingerprints
from store.catalog.errors import PictureRejected
from store.catalog.models import Version
from store.catalog.revisions import EDITORS
from store.errors import DomainError
from store.pages.studio import forms
from store.pages.studio.access import form_view, own_listing, person, to_dashboard, version_of


@login_required
@form_view
def edit_version(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    version = version_of(found, number)
    initial = {**forms.prompt_of(version), "change_log": version.change_log, "seen": fingerprints(versions.editable(version))}
    form = _draft_form(request, version, request.POST or None, initial)
    context: dict[str, Any] = {"listing": found, "publisher": found.publisher, "version": version}
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            publishing.edit_version(person(request), version, seen=form.cleaned_data["seen"] or None, **_edited(form, version))
        except EditedMeanwhile as error:
            merged = {"change_log": error.merge.values["change_log"], "seen": fingerprints(error.merge.theirs)}
            form = _draft_form(request, version, None, {**forms.as_typed(error.merge.values), **merged})
            said = {"starters": "\n".join(error.merge.theirs["starters"]), "parameters": _as_text(error.merge.theirs["parameters"])}
            context |= _clash(error, form, {**error.merge.theirs, **said}, {}, about=version.public_id)
            status = error.status
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return to_dashboard(found)
    return render(request, "pages/studio/version.html", {**context, "form": form}, status=422 if form.errors else status)


def _draft_form(request: HttpRequest, version: Version, typed: Any, initial: dict[str, Any]) -> forms.DraftForm:
    form = forms.DraftForm(typed, user=person(request), initial={**initial, "number": version.number})
    form.fields["number"].disabled = True
    del form.fields["base"]  # what a version builds on is decided when it is made
    if version.kind != Version.Kind.PROMPT:
        del form.fields["instructions"]
    return form


def _edited(form: forms.DraftForm, version: Version) -> dict[str, Any]:
    form.cleaned_data.setdefault("instructions", "")
    fields = {**form.prompt(of=version), "change_log": form.cleaned_data["change_log"]}
    return {name: value for name, value in fields.items() if name != "instructions" or name in form.fields}


def _as_text(parameters: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in parameters.items())


@login_required
@form_view
def edit_texts(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    stored = revisions.current_texts(found)
    form = forms.EditedTextsForm(request.POST) if request.method == "POST" else forms.EditedTextsForm.of(stored, stored=stored)
    context: dict[str, Any] = {"listing": found, "publisher": found.publisher, "drafted": revisions.latest(found, "draft")}
    status = 200
    if request.method == "POST" and "preview" not in request.POST and form.is_valid():
        try:
            publishing.edit_texts(person(request), found, texts=form.texts(), seen=form.cleaned_data["seen"] or None)
        except EditedMeanwhile as error:
            form = forms.EditedTextsForm.of(error.merge.values, stored=error.merge.theirs)
            draft = revisions.latest(found, "draft")
            context |= _clash(error, form, error.merge.theirs, form.params, about=draft.public_id if draft else "")
            status = error.status
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The texts are saved as a draft. They change in the store when a reviewer has approved them."))
            return to_dashboard(found)
    return render(request, "pages/studio/texts.html", {**context, "form": form}, status=422 if form.errors else status)


@login_required
@require_POST
def set_icon(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """The picture `icon`, or none again."""
    found = own_listing(request, publisher, slug, *EDITORS)
    sent = request.FILES.get("icon")
    try:
        if sent is None and "remove" not in request.POST:
            raise PictureRejected(_("Choose a picture."), param="icon")
        publishing.set_icon(person(request), found, sent.file if sent else None)
    except DomainError as error:
        if error.status in (403, 404):
            raise
        messages.error(request, str(error))
    else:
        messages.success(request, _("The icon is saved as a draft. It changes in the store when a reviewer has approved it."))
    return redirect("pages:studio_texts", found.publisher.slug, found.slug)


def _clash(
    error: EditedMeanwhile, form: django_forms.Form, theirs: dict[str, str], params: dict[str, str], *, about: str
) -> dict[str, Any]:
    """Who saved meanwhile, and what they wrote where both changed the same; `params`: an act's name of a field → the form's."""
    merge: Merge = error.merge
    saved = AuditEntry.objects.filter(target=about).select_related("actor").first() if about else None
    fields = {name: form.fields.get(params.get(name, name)) for name in merge.clashing}
    labels = {name: field.label if field else _("Default parameters") for name, field in fields.items()}
    clashing = [
        {"label": labels[name], "language": name.partition(".")[0] if "." in name else "", "theirs": theirs[name]} for name in labels
    ]
    return {"error": error, "saved_by": saved.actor if saved else None, "clashing": clashing}
