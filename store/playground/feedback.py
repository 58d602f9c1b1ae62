"""What people thought of answers: their verdicts, what they asked again, and which of two answers they preferred.

Publishers see of it what belongs to people who agreed, in conversations begun after that, and texts only where enough different
people are among them; never whose they are. A publisher's own members are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db.models import F, Q, QuerySet

from store.accounts.models import Membership, User
from store.catalog.models import Listing
from store.errors import NotFound
from store.generation.models import Request
from store.playground.models import Conversation, FeedbackConsent, Message

LOOKED_THROUGH = 500  # conversations of a listing, the newest


@dataclass(frozen=True)
class Question:
    """What somebody asked, what was said before it, and every answer to it, oldest first."""

    user_id: int
    message: Message
    before: Sequence[Message]
    answers: list[Message] = field(default_factory=list)

    @property
    def is_asked_again(self) -> bool:
        return len(self.answers) > 1

    @property
    def is_disliked(self) -> bool:
        return any(answer.liked is False for answer in self.answers)

    @property
    def is_liked(self) -> bool:
        return any(answer.liked for answer in self.answers)

    def prompt(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.text} for message in (*self.before, self.message)]


@dataclass(frozen=True)
class Preference:
    question: Question
    chosen: Message
    rejected: Message

    def record(self) -> dict[str, Any]:
        """A line of a preference file, as the README of fine-tunes has it."""
        answers = {"chosen": self.chosen, "rejected": self.rejected}
        said = {name: [{"role": "assistant", "content": answer.text}] for name, answer in answers.items()}
        return {"prompt": self.question.prompt(), **said}


@dataclass(frozen=True)
class Feedback:
    """What may be shown of a listing's feedback."""

    questions: list[Question]
    preferences: list[Preference]

    @property
    def people(self) -> int:
        return len({question.user_id for question in self.questions})

    @property
    def may_show_texts(self) -> bool:
        return self.people >= settings.FEEDBACK_LEAST_PEOPLE

    @property
    def asked_again(self) -> int:
        return sum(question.is_asked_again for question in self.questions)

    @property
    def disliked(self) -> int:
        return sum(question.is_disliked for question in self.questions)

    @property
    def liked(self) -> int:
        return sum(question.is_liked for question in self.questions)

    @property
    def troubled(self) -> list[Question]:
        """Asked again or disliked, the newest first."""
        return [question for question in self.questions if question.is_asked_again or question.is_disliked]


def judge(answer: Message, *, liked: bool | None) -> None:
    """Keeps what who asked thinks of an answer; None takes it back. Raises NotFound for a question."""
    if answer.role != Message.Role.ASSISTANT:
        raise NotFound
    Message.objects.filter(pk=answer.pk).update(liked=liked)


def has_agreed(user: Any) -> bool:
    return isinstance(user, User) and FeedbackConsent.objects.filter(user=user).exists()


def shared_by(user: User) -> int:
    """How many answers of the person's publishers can see: judged, or replaced by another one."""
    return _consented(Message.objects.filter(conversation__user=user)).filter(_TELLING).count()


def of_listing(listing: Listing) -> Feedback:
    """In a fixed number of queries."""
    members = Membership.objects.filter(publisher=listing.publisher).values("user")
    told = (
        _consented(Message.objects.filter(conversation__version__listing=listing)).filter(_TELLING).exclude(conversation__user__in=members)
    )
    chosen = told.order_by("-conversation_id").values_list("conversation_id", flat=True).distinct()[:LOOKED_THROUGH]
    conversations = Conversation.objects.filter(pk__in=list(chosen)).order_by("-pk")
    messages = Message.objects.filter(conversation__in=list(conversations)).select_related("request").order_by("pk")
    by_conversation: dict[int, list[Message]] = {}
    for message in messages:
        by_conversation.setdefault(message.conversation_id, []).append(message)
    found = [question for its in conversations for question in reversed(questions_of(its, by_conversation.get(its.pk, [])))]
    telling = [question for question in found if question.is_asked_again or any(answer.liked is not None for answer in question.answers)]
    return Feedback(telling, [preference for question in telling for preference in _preferences(question)])


_TELLING = Q(role=Message.Role.ASSISTANT) & (Q(liked__isnull=False) | Q(replaced_at__isnull=False))


def _consented(messages: QuerySet[Message]) -> QuerySet[Message]:
    return messages.filter(conversation__user__feedback_consent__given_at__lte=F("conversation__created_at"))


def questions_of(conversation: Conversation, messages: Iterable[Message]) -> list[Question]:
    """Each question with its answers. What was edited away is a question of its own, before which nothing of it stands."""
    assert conversation.user_id is not None
    found: list[Question] = []
    thread: list[Message] = []
    for message in messages:
        if message.role == Message.Role.USER:
            found.append(Question(conversation.user_id, message, [before for before in thread if before.replaced_at is None]))
        elif found and _is_whole(message):
            found[-1].answers.append(message)
        thread.append(message)
    return found


def _is_whole(answer: Message) -> bool:
    return bool(answer.text.strip()) and answer.request is not None and answer.request.state == Request.State.FINISHED


def _preferences(question: Question) -> list[Preference]:
    """The best answer rather than each that is worse: what is liked before what was kept, that before what was asked again."""
    if not question.answers:
        return []
    best = max(question.answers, key=_standing)
    worse = [answer for answer in question.answers if _standing(answer) < _standing(best) and answer.text != best.text]
    return [Preference(question, best, answer) for answer in worse]


def _standing(answer: Message) -> int:
    verdict = {True: 2, None: 0, False: -2}[answer.liked]
    return verdict + (answer.replaced_at is None)
