"""A chat with a prompt GPT that is being written: what stands in the form answers, and nothing of it is kept.

The instructions go along as the system message of a use of the base, which is what a prompt GPT is; so a try is metered, limited
and paid as every use of the base by this person is.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from store.accounts.models import Membership
from store.catalog.errors import BaseUnavailable
from store.catalog.models import Version
from store.catalog.revisions import EDITORS
from store.catalog.versions import clean_instructions
from store.errors import NotAllowed
from store.generation import admission
from store.generation.errors import BadMessages
from store.generation.models import Request
from store.pages.studio import forms
from store.pages.studio.access import person
from store.playground.views.edge import act

MAX_TURNS = 40


@login_required
@act
def try_draft(request: HttpRequest) -> HttpResponse:
    """`base`, `instructions` and parameters as the form has them; `conversation`: a JSON list of {role, content}."""
    user = person(request)
    if not Membership.objects.filter(user=user, role__in=EDITORS).exists():
        raise NotAllowed
    form = forms.TriedForm(request.POST, user=user)
    usable = Version.objects.usable_by(user).exclude(kind=Version.Kind.PROMPT).select_related("listing__publisher", "base__listing")
    base = usable.filter(public_id=request.POST.get("base", "")[:40]).first()
    if base is None:
        raise BaseUnavailable(param="base")
    told = {"role": "system", "content": clean_instructions(request.POST.get("instructions", ""))}
    messages = [told, *_turns(request.POST.get("conversation", ""))]
    asked = admission.admit(base, messages=messages, sampling=form.parameters(), user=user, source=Request.Source.TRY)
    names = ("events", "stop")
    return JsonResponse({name: reverse(f"playground:{name}", args=[asked.public_id]) for name in names})


def _turns(raw: str) -> list[dict[str, Any]]:
    """The questions and answers so far. Raises BadMessages for anything else: the instructions alone are the GPT's."""
    try:
        turns = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadMessages(_("There is no question."), param="conversation") from error
    well_formed = isinstance(turns, list) and all(
        isinstance(turn, dict) and set(turn) == {"role", "content"} and isinstance(turn["content"], str) for turn in turns
    )
    if not well_formed or not 0 < len(turns) <= MAX_TURNS:
        raise BadMessages(_("A conversation has 1 to %(limit)s messages here. Start over.") % {"limit": MAX_TURNS}, param="conversation")
    if [turn["role"] for turn in turns] != [("user", "assistant")[place % 2] for place in range(len(turns))] or len(turns) % 2 == 0:
        raise BadMessages(_("Questions and answers take turns, and a question is the last."), param="conversation")
    return turns
