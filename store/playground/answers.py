"""The text of answers: kept when a request ends, and readable from its stream before that."""

from __future__ import annotations

from django.utils import timezone

from inference.protocol import Finished
from store.generation import streams
from store.generation.models import Request
from store.playground.models import Message


def keep(request: Request, finished: Finished) -> None:
    """Stores what was said; called in the transaction that ends a request, also when nobody was reading."""
    Message.objects.filter(request=request, text="").update(text=streams.text_so_far(request.public_id))


def spoken(answer: Message) -> str:
    """The text of an answer, from its stream while it is not stored yet."""
    if answer.text or answer.request is None:
        return answer.text
    return streams.text_so_far(answer.request.public_id)


def is_under_way(answer: Message) -> bool:
    """Whether more of this answer may come."""
    return is_to_be_read(answer) and answer.request is not None and not streams.has_ended(answer.request.public_id)


def is_to_be_read(answer: Message) -> bool:
    """Whether its stream has to be read, because it is not recorded yet how the answer ended."""
    request = answer.request
    return request is not None and request.state == Request.State.ADMITTED and request.deadline_at > timezone.now()
