"""The pages that explain: what a GPT is, how to choose one, what the store checks, what can go wrong, how to publish and earn."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from store.accounts.visitors import network_of
from store.catalog import naming
from store.catalog.models import Listing, Version
from store.errors import AWAY, DomainError, NotFound
from store.generation import attention
from store.generation.errors import NoWorker
from store.moderation.checks import OF_FILES, OF_PROMPTS
from store.pages.attention_figure import Figure, example

LESSONS: list[tuple[str, str | Promise, str | Promise]] = [  # name of its address, title, what it says in a line
    ("pages:learn_gpt", _("What a GPT is"), _("How it differs from other language technology, with attention to try.")),
    ("pages:learn_choosing", _("Choosing a GPT"), _("Measured numbers, ratings, use and price, and what each can tell you.")),
    ("pages:learn_quality", _("How quality is kept"), _("What is checked by machine, what a person decides, what is measured.")),
    ("pages:learn_risks", _("Risks"), _("Mistakes, bias, unsafe use and privacy, and what is done about them.")),
    ("pages:learn_publishing", _("Publishing and earning"), _("The way from a draft to the shelf, and who gets what of a charge.")),
]
MODEL_KEY, MODEL_KEPT_S = "attention:model", 60
WORKED = 100  # units of the currency, of which the shares are worked out as an example


class Sentence(forms.Form):
    """What the reader wants to see; layers and heads count from 1."""

    text = forms.CharField(label=_("Your sentence"), max_length=attention.MAX_CHARS, widget=forms.TextInput(attrs={"class": "input"}))
    layer = forms.IntegerField(label=_("Layer"), min_value=1, max_value=999, widget=forms.NumberInput(attrs={"class": "input num"}))
    head = forms.IntegerField(label=_("Head"), min_value=1, max_value=999, widget=forms.NumberInput(attrs={"class": "input num"}))

    def clean_text(self) -> str:
        return " ".join(self.cleaned_data["text"].split())


@require_safe
def gpt(request: HttpRequest) -> HttpResponse:
    """The figure is computed when a sentence stands in the address, so that it needs neither script nor cookie."""
    shown = example()
    sentence = Sentence(request.GET if "text" in request.GET else None)
    context: dict[str, Any] = {"model": _model(request.user), "is_example": True, "trouble": ""}
    if sentence.is_bound and sentence.is_valid():
        try:
            shown, context["is_example"] = _attended(request, context["model"], sentence.cleaned_data), False
        except DomainError as error:
            context["trouble"] = str(error)
        except AWAY:
            context["trouble"] = str(NoWorker.message)
    elif not sentence.is_bound:
        sentence = Sentence(initial={"text": shown.text, "layer": shown.layer, "head": shown.head})
    return _lesson(request, "gpt", figure=shown, form=sentence, asked=sentence.is_bound, **context)


@require_safe
def choosing(request: HttpRequest) -> HttpResponse:
    return _lesson(request, "choosing")


@require_safe
def quality(request: HttpRequest) -> HttpResponse:
    return _lesson(request, "quality", checks_of_files=len(OF_FILES), checks_of_prompts=len(OF_PROMPTS))


@require_safe
def risks(request: HttpRequest) -> HttpResponse:
    return _lesson(request, "risks", visitor_tries=settings.VISITOR_TRIES_PER_DAY, per_minute=settings.REQUESTS_PER_MINUTE)


@require_safe
def publishing(request: HttpRequest) -> HttpResponse:
    of_store = WORKED * settings.PLATFORM_SHARE_PERCENT / 100
    of_base = (WORKED - of_store) * settings.ANCESTOR_SHARE_PERCENT / 100
    worked = {"whole": WORKED, "store": of_store, "base": of_base, "own": WORKED - of_store - of_base}
    shares = {"platform": settings.PLATFORM_SHARE_PERCENT, "ancestor": settings.ANCESTOR_SHARE_PERCENT}
    return _lesson(request, "publishing", shares=shares, worked=worked)


def _lesson(request: HttpRequest, name: str, **context: Any) -> HttpResponse:
    return render(request, f"pages/learn/{name}.html", {"lessons": LESSONS, **context})


def _attended(request: HttpRequest, model: Version | None, asked: dict[str, Any]) -> Figure:
    """Raises DomainError."""
    if model is None:
        raise NoWorker
    where = {"layer": asked["layer"] - 1, "head": asked["head"] - 1}
    order = attention.ask(model, text=asked["text"], network=network_of(request), **where)
    if not connection.in_atomic_block:
        connection.close()
    return Figure.of(async_to_sync(attention.collect)(order))


def _model(user: Any) -> Version | None:
    """Whose attention is shown: the operator's choice, or the free full weights that are used most. None: there are none."""
    name = settings.FIGURE_MODEL or cache.get(MODEL_KEY)
    if name is None:
        free = Listing.objects.listed().filter(current_version__kind=Version.Kind.WEIGHTS, input_price_micro=0, output_price_micro=0)
        most_used = free.order_by("-request_count", "pk").select_related("publisher").first()
        name = most_used.full_name if most_used else ""
        cache.set(MODEL_KEY, name, MODEL_KEPT_S)
    try:
        return naming.resolve(name, user)
    except NotFound:
        return None
