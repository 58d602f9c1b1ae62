"""The acts of a chat: ask, ask again, ask otherwise, stop, keep, rename, delete; and whose a conversation is.

Every asking act writes its messages in the transaction that admits the request: when the request is refused, nothing is written.
Only a further question that the broker then does not take is kept, as one whose answer failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from store.accounts.models import User
from store.catalog.models import Version
from store.errors import NotFound
from store.generation import messages as reading
from store.generation import streams
from store.generation.admission import admit
from store.generation.errors import NoWorker
from store.generation.models import Request
from store.playground import answers, preference_sets
from store.playground.errors import BadTitle, StillAnswering, Superseded, Withdrawn
from store.playground.models import Conversation, Message

TITLE_CHARS = 60
BYTES_PER_TOKEN = 3  # English has about four: what is kept of a history by this measure fits the context
_LINEAGE = (
    "version__listing__publisher",
    "version__artifact",
    "version__base__artifact",
    "version__base__listing__publisher",
    "version__base__base__artifact",
    "version__base__base__listing__publisher",
    "version__base__base__base__listing",
)


# ---------------------------------------------------------------- whose


def _belongs_to(user: User | Any, visitor: str) -> Q | None:
    """What selects a person's rows: by their account, else by their visitor id; None for who has neither."""
    if isinstance(user, User):
        return Q(user=user)
    return Q(user=None, visitor=visitor) if visitor else None


def of(user: User | Any, visitor: str) -> QuerySet[Conversation]:
    """A person's conversations, the last used first."""
    own = _belongs_to(user, visitor)
    return Conversation.objects.filter(own) if own is not None else Conversation.objects.none()


def find(public_id: str, *, user: User | Any, visitor: str) -> Conversation:
    """Raises NotFound for a stranger's."""
    conversation = of(user, visitor).filter(public_id=public_id).select_related(*_LINEAGE).first()
    if conversation is None:
        raise NotFound
    return conversation


def find_message(public_id: str, *, user: User | Any, visitor: str) -> Message:
    """A message of one's own conversations. Raises NotFound for a stranger's."""
    lineage = [f"conversation__{name}" for name in _LINEAGE]
    found = Message.objects.filter(public_id=public_id, conversation__in=of(user, visitor))
    message = found.select_related("conversation", *lineage).first()
    if message is None:
        raise NotFound
    return message


def find_request(public_id: str, *, user: User | Any, visitor: str) -> Request:
    """A generation that the person began on the site. Raises NotFound for a stranger's."""
    own = _belongs_to(user, visitor)
    found = Request.objects.filter(own, public_id=public_id).exclude(source=Request.Source.API) if own is not None else None
    request = found.select_related("version__listing").first() if found is not None else None
    if request is None:
        raise NotFound
    return request


def thread(conversation: Conversation) -> list[Message]:
    """What the conversation consists of now, oldest first: without what was regenerated or edited away."""
    return list(conversation.messages.filter(replaced_at=None).select_related("request"))


def spent_micro(conversation: Conversation) -> int:
    """What all its answers cost, those that were replaced too."""
    return int(conversation.messages.aggregate(cost=Sum("request__cost_micro"))["cost"] or 0)


# ---------------------------------------------------------------- asking


def start(version: Version, *, text: str, user: User | Any, visitor: str = "", parameters: Mapping[str, Any] | None = None) -> Message:
    """A new conversation with its first question; returns the answer that is now being written.

    Of one whose first question the broker does not take nothing is kept: a new visitor could not find it again.
    """
    text = checked(text)
    person = user if isinstance(user, User) else None
    conversation = Conversation(
        version=version, user=person, visitor="" if person else visitor, title=_title(text), parameters=dict(parameters or {})
    )
    try:
        with transaction.atomic():
            conversation.save()
            return _ask(conversation, text, user=user, visitor=visitor)
    except NoWorker:
        Conversation.objects.filter(public_id=conversation.public_id).delete()
        raise


@transaction.atomic
def ask(
    conversation: Conversation, *, text: str, user: User | Any, visitor: str = "", parameters: Mapping[str, Any] | None = None
) -> Message:
    """The next question. Raises StillAnswering and whatever `admit` raises."""
    conversation = _quiet(conversation, parameters)
    return _ask(conversation, checked(text), user=user, visitor=visitor)


@transaction.atomic
def regenerate(answer: Message, *, user: User | Any, visitor: str = "", parameters: Mapping[str, Any] | None = None) -> Message:
    """Another answer to the last question, in place of this one."""
    conversation = _quiet(answer.conversation, parameters)
    if answer.pk != thread(conversation)[-1].pk or answer.role != Message.Role.ASSISTANT:
        raise Superseded
    _replace(conversation, since=answer)
    return _answer(conversation, user=user, visitor=visitor)


@transaction.atomic
def edit(question: Message, *, text: str, user: User | Any, visitor: str = "", parameters: Mapping[str, Any] | None = None) -> Message:
    """The last question in other words: it and its answer are replaced."""
    conversation = _quiet(question.conversation, parameters)
    if question.pk not in [message.pk for message in thread(conversation)[-2:]] or question.role != Message.Role.USER:
        raise Superseded
    _replace(conversation, since=question)
    return _ask(conversation, checked(text), user=user, visitor=visitor)


def checked(text: str) -> str:
    """The question as it is kept: browsers end the lines of a form with CRLF."""
    return reading.checked([{"role": "user", "content": text.replace("\r\n", "\n").strip()}])[0]["content"]


def _quiet(conversation: Conversation, parameters: Mapping[str, Any] | None) -> Conversation:
    """The conversation, locked, with the parameters that hold from now on. Raises StillAnswering."""
    conversation = Conversation.objects.select_for_update(of=("self",)).select_related(*_LINEAGE).get(pk=conversation.pk)
    if any(answers.is_under_way(message) for message in thread(conversation)):
        raise StillAnswering
    if parameters is not None:
        conversation.parameters = dict(parameters)
    return conversation


def _replace(conversation: Conversation, *, since: Message) -> None:
    conversation.messages.filter(pk__gte=since.pk, replaced_at=None).update(replaced_at=timezone.now())


def _ask(conversation: Conversation, text: str, *, user: User | Any, visitor: str) -> Message:
    Message.objects.create(conversation=conversation, role=Message.Role.USER, text=text)
    return _answer(conversation, user=user, visitor=visitor)


def _answer(conversation: Conversation, *, user: User | Any, visitor: str) -> Message:
    if not Version.objects.usable_by(user).filter(pk=conversation.version_id).exists():
        raise Withdrawn
    request = admit(
        conversation.version,
        messages=_fitting(_said(conversation), conversation),
        sampling=conversation.parameters,
        user=user,
        visitor=visitor,
        source=Request.Source.CHAT,
    )
    conversation.save(update_fields=["parameters", "updated_at"])
    return Message.objects.create(conversation=conversation, role=Message.Role.ASSISTANT, request=request)


def _said(conversation: Conversation) -> list[dict[str, str]]:
    """The thread as the model reads it; a question that got no answer is left out with it."""
    said: list[dict[str, str]] = []
    for message in thread(conversation):
        text = answers.spoken(message)
        if message.role == Message.Role.ASSISTANT and not text.strip():
            said.pop()
            continue
        said.append({"role": message.role, "content": text})
    return said


def _fitting(said: list[dict[str, str]], conversation: Conversation) -> list[dict[str, str]]:
    """The newest exchanges that the model can read at once. The question always: too long by itself, it is refused by itself."""
    version = conversation.version
    max_tokens = reading.sampling_for(version, conversation.parameters).max_tokens
    context = int(version.weights().facts.get("context_length") or settings.MAX_PROMPT_CHARS)
    *history, question = said
    bytes_left = (context - max_tokens) * BYTES_PER_TOKEN - len((version.instructions + question["content"]).encode())
    characters_left = settings.MAX_PROMPT_CHARS - len(question["content"])
    kept = len(history)
    while kept >= 2:
        exchange = history[kept - 2]["content"] + history[kept - 1]["content"]
        bytes_left -= len(exchange.encode())
        characters_left -= len(exchange)
        if bytes_left < 0 or characters_left < 0:
            break
        kept -= 2
    return [*history[kept:], question]


def _title(text: str) -> str:
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= TITLE_CHARS else f"{line[: TITLE_CHARS - 1].rstrip()}…"


# ---------------------------------------------------------------- the rest


def stop(request: Request) -> None:
    """Asks the engine to stop; what it said until then is kept."""
    async_to_sync(streams.cancel)(request.public_id)


@transaction.atomic
def keep(request: Request, *, text: str) -> Conversation:
    """The conversation that goes on from a try: its question and its answer. Asked twice, it is the same one."""
    if request.source == Request.Source.ARENA:
        raise NotFound  # a conversation would give the name of its GPT away
    request = Request.objects.select_for_update(of=("self",)).select_related("version__listing__publisher", "user").get(pk=request.pk)
    kept = request.messages.select_related("conversation").first()
    if kept is not None:
        return kept.conversation
    text = checked(text)
    conversation = Conversation.objects.create(version=request.version, user=request.user, visitor=request.visitor, title=_title(text))
    Message.objects.create(conversation=conversation, role=Message.Role.USER, text=text)
    answer = Message(conversation=conversation, role=Message.Role.ASSISTANT, request=request)
    answer.text = answers.spoken(answer) if not answers.is_under_way(answer) else ""
    answer.save()
    return conversation


def rename(conversation: Conversation, *, title: str) -> None:
    title = " ".join(title.split())
    if not 1 <= len(title) <= 80 or not title.isprintable():
        raise BadTitle(param="title")
    Conversation.objects.filter(pk=conversation.pk).update(title=title)


@transaction.atomic
def delete(conversation: Conversation) -> None:
    """With all its messages; an answer under way is stopped. The requests stay for the accounts: they hold no text."""
    preference_sets.forget(conversation)
    under_way = [message.request for message in thread(conversation) if message.request and answers.is_under_way(message)]
    conversation.delete()
    for request in under_way:
        transaction.on_commit(partial(stop, request))


@transaction.atomic
def adopt(user: User, visitor: str) -> None:
    """What a visitor asked and was told becomes their account's when they sign in."""
    if visitor:
        Conversation.objects.filter(user=None, visitor=visitor).update(user=user, visitor="")
        Request.objects.filter(user=None, visitor=visitor).update(user=user, visitor="")
