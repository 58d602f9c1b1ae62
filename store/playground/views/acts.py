"""The acts: ask, try, regenerate, edit, stop, keep, rename, delete. Each answers with what the page then shows."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from inference.protocol import Finished
from store.accounts.visitors import visitor_of
from store.catalog import naming
from store.errors import NotFound
from store.generation import admission, settlement, streams
from store.generation.models import Request
from store.playground import conversations, feedback, parameters
from store.playground.models import Conversation, Message
from store.playground.views import tries
from store.playground.views.edge import act, asking, wants_json
from store.playground.views.rows import row_of


@never_cache
@require_GET
def csrf(request: HttpRequest) -> HttpResponse:
    """The token for a page that was served without one, asked for at the first act."""
    return JsonResponse({"token": get_token(request)})


@asking
def start(request: HttpRequest) -> HttpResponse:
    asker = who(request)
    version = naming.resolve(request.POST.get("model", ""), asker["user"])
    own = parameters.read(request.POST.dict(), version)
    return _asked(request, conversations.start(version, text=request.POST.get("text", ""), parameters=own, **asker))


@asking
def ask(request: HttpRequest, public_id: str) -> HttpResponse:
    conversation = conversations.find(public_id, **who(request))
    own = parameters.read(request.POST.dict(), conversation.version)
    return _asked(request, conversations.ask(conversation, text=request.POST.get("text", ""), parameters=own, **who(request)))


@asking
def regenerate(request: HttpRequest, public_id: str) -> HttpResponse:
    answer = conversations.find_message(public_id, **who(request))
    own = parameters.read(request.POST.dict(), answer.conversation.version)
    return _asked(request, conversations.regenerate(answer, parameters=own, **who(request)))


@act
def judge(request: HttpRequest, public_id: str) -> HttpResponse:
    """What who asked thinks of an answer: liked, disliked, or neither any more."""
    answer = conversations.find_message(public_id, **who(request))
    feedback.judge(answer, liked={"yes": True, "no": False}.get(request.POST.get("liked", "")))
    return JsonResponse({"shared": feedback.has_agreed(request.user)})


@asking
def edit(request: HttpRequest, public_id: str) -> HttpResponse:
    question = conversations.find_message(public_id, **who(request))
    own = parameters.read(request.POST.dict(), question.conversation.version)
    return _asked(request, conversations.edit(question, text=request.POST.get("text", ""), parameters=own, **who(request)))


def _asked(request: HttpRequest, answer: Message) -> HttpResponse:
    """The question and the place of the answer as the page shows them; without a script, the page when the answer is there."""
    conversation = answer.conversation
    url = reverse("playground:conversation", args=[conversation.public_id])
    if not wants_json(request):
        assert answer.request is not None
        if not connection.in_atomic_block:
            connection.close()
        _text, event = async_to_sync(streams.collect)(answer.request.public_id)
        settlement.finish(Finished.from_json(event))
        return redirect(url)
    question, answer = conversations.thread(conversation)[-2:]
    context = {"version": conversation.version, "conversation": conversation}
    return JsonResponse(
        {
            "url": url,
            "conversation": conversation.public_id,
            "title": conversation.title,
            "ask": reverse("playground:ask", args=[conversation.public_id]),
            "question": render_to_string("playground/message.html", {**context, "row": row_of(question, is_last=True)}),
            "answer": render_to_string("playground/message.html", {**context, "row": row_of(answer, is_last=True)}),
        }
    )


@asking
def try_it(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """One question without a conversation, from the box on a GPT's page."""
    asker = who(request)
    version = naming.resolve(request.POST.get("model") or f"{publisher}/{slug}", asker["user"])
    if (version.listing.publisher.slug, version.listing.slug) != (publisher, slug):
        raise NotFound
    text = request.POST.get("text", "").replace("\r\n", "\n").strip()
    asked = admission.admit(version, messages=[{"role": "user", "content": text}], sampling={}, source=Request.Source.TRY, **asker)
    return JsonResponse(
        {
            "events": reverse("playground:events", args=[asked.public_id]),
            "stop": reverse("playground:stop", args=[asked.public_id]),
            "keep": reverse("playground:keep", args=[asked.public_id]),
            "left": tries.left(request, asker["visitor"]),
        }
    )


@act
def keep(request: HttpRequest, public_id: str) -> HttpResponse:
    asked = conversations.find_request(public_id, **who(request))
    return _went(request, conversations.keep(asked, text=request.POST.get("text", "")))


@act
def stop(request: HttpRequest, public_id: str) -> HttpResponse:
    asked = conversations.find_request(public_id, **who(request))
    conversations.stop(asked)
    if wants_json(request):
        return JsonResponse({}, status=202)
    message = asked.messages.select_related("conversation").first()
    return redirect("playground:conversation", message.conversation.public_id) if message else redirect("playground:chat")


@act
def rename(request: HttpRequest, public_id: str) -> HttpResponse:
    conversation = conversations.find(public_id, **who(request))
    conversations.rename(conversation, title=request.POST.get("title", ""))
    return _went(request, conversation)


@act
def delete(request: HttpRequest, public_id: str) -> HttpResponse:
    conversations.delete(conversations.find(public_id, **who(request)))
    return _went(request, None)


def _went(request: HttpRequest, conversation: Conversation | None) -> HttpResponse:
    url = reverse("playground:conversation", args=[conversation.public_id]) if conversation else reverse("playground:chat")
    return JsonResponse({"url": url}) if wants_json(request) else redirect(url)


def who(request: HttpRequest) -> dict[str, Any]:
    visitor: str = getattr(request, "visitor", "") or ("" if request.user.is_authenticated else visitor_of(request))
    return {"user": request.user, "visitor": visitor}
