"""Feedback that people agreed to share: what publishers see of it, the data sets they make, and how it is taken out again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from inference.records import Format, parse_line
from store.accounts import erasure
from store.accounts.models import User
from store.catalog import artifacts
from store.catalog.models import Listing, Version
from store.errors import NotAllowed
from store.generation.models import Request
from store.jobs import dispatch
from store.jobs.errors import NotRetriable
from store.jobs.models import Job, UploadedFile
from store.playground import conversations, feedback, preference_sets
from store.playground.models import Conversation, Message, PreferencePair, PreferenceSet
from tests import making

pytestmark = pytest.mark.django_db
Role = Message.Role


@pytest.fixture
def version() -> Version:
    return making.make_prompt()


@pytest.fixture
def listing(version: Version) -> Listing:
    return version.listing


@pytest.fixture
def owner(listing: Listing) -> User:
    return making.owner_of(listing.publisher)


def agreeing() -> User:
    user = making.make_user()
    preference_sets.agree(user)
    return user


def chat(user: User, version: Version, *answers: tuple[str, bool | None], question: str = "Say hello.") -> Conversation:
    """A question and its answers, each with its verdict; all but the last were asked again."""
    conversation = Conversation.objects.create(user=user, version=version, title=question)
    Message.objects.create(conversation=conversation, role=Role.USER, text=question)
    for number, (text, liked) in enumerate(answers, 1):
        request = Request.objects.create(version=version, user=user, source="chat", state="finished", deadline_at=timezone.now())
        replaced_at = timezone.now() if number < len(answers) else None
        Message.objects.create(
            conversation=conversation, role=Role.ASSISTANT, text=text, request=request, liked=liked, replaced_at=replaced_at
        )
    return conversation


def three_people(version: Version) -> list[User]:
    people = [agreeing() for _ in range(3)]
    for number, user in enumerate(people):
        chat(user, version, (f"Bad {number}", None), (f"Good {number}", None), question=f"Question {number}")
    return people


def lines_of(file: UploadedFile) -> list[dict[str, Any]]:
    raw = artifacts.read_blob(file.sha256, max_bytes=10**6).decode()
    return [json.loads(line) for line in raw.splitlines()]


# ---------------------------------------------------------------- what is seen


def test_nothing_is_seen_of_who_did_not_agree_or_chatted_before_agreeing(version: Version, listing: Listing) -> None:
    silent, late = making.make_user(), making.make_user()
    chat(silent, version, ("Bad", False))
    chat(late, version, ("Bad", False))
    preference_sets.agree(late)

    assert feedback.of_listing(listing).questions == []

    chat(late, version, ("Bad", False))
    assert feedback.of_listing(listing).disliked == 1
    assert feedback.shared_by(late) == 1


def test_a_publishers_own_members_are_left_out(version: Version, listing: Listing, owner: User) -> None:
    preference_sets.agree(owner)
    chat(owner, version, ("Bad", False))

    assert feedback.of_listing(listing).people == 0


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("A", None), ("B", None)], [("B", "A")]),  # what was kept, rather than what was asked again
        ([("A", None), ("B", None), ("C", None)], [("C", "A"), ("C", "B")]),
        ([("A", True), ("B", False)], [("A", "B")]),  # a verdict outweighs the order
        ([("A", True), ("B", None)], [("A", "B")]),
        ([("A", False), ("B", True)], [("B", "A")]),
        ([("A", None), ("A", None)], []),  # the same words teach nothing
        ([("A", None), (" ", None)], []),
        ([("A", True)], []),
    ],
)
def test_which_of_two_answers_was_preferred(
    version: Version, listing: Listing, answers: list[tuple[str, bool | None]], expected: list[tuple[str, str]]
) -> None:
    chat(agreeing(), version, *answers)

    found = feedback.of_listing(listing).preferences

    assert [(its.chosen.text, its.rejected.text) for its in found] == expected


def test_an_answer_that_broke_off_teaches_nothing(version: Version, listing: Listing) -> None:
    conversation = chat(agreeing(), version, ("A", None), ("B", None))
    Request.objects.filter(messages=conversation.messages.get(text="A")).update(state=Request.State.CANCELLED)

    assert feedback.of_listing(listing).preferences == []


def test_texts_are_shown_when_enough_people_share(client: Client, version: Version, listing: Listing, owner: User) -> None:
    client.force_login(owner)
    address = f"/en/studio/gpts/{listing.full_name}/feedback/"
    people = [agreeing(), agreeing()]
    for user in people:
        chat(user, version, ("A poor answer", False), ("A better one", None), question="A telling question")

    few = client.get(address).text
    third = agreeing()
    chat(third, version, ("A poor answer", False), question="Another question")
    enough = client.get(address).text

    assert "A telling question" not in few
    assert "once 3 people share feedback" in few
    assert "A telling question" in enough
    assert "A better one" in enough
    assert not any(user.username in enough or user.public_id in enough for user in (*people, third))


def test_the_page_costs_as_many_queries_for_many_people_as_for_few(client: Client, version: Version, listing: Listing, owner: User) -> None:
    client.force_login(owner)
    address, counts = f"/en/studio/gpts/{listing.full_name}/feedback/", []
    for _ in range(2):
        three_people(version)
        preference_sets.make(owner, listing)
        client.get(address)  # what is kept from the first time on
        with CaptureQueriesContext(connection) as queries:
            client.get(address)
        counts.append(len(queries))

    assert counts[0] == counts[1]


# ---------------------------------------------------------------- data sets


def test_a_data_set_is_a_file_of_preferences_that_a_fine_tune_can_read(version: Version, listing: Listing, owner: User) -> None:
    three_people(version)

    made = preference_sets.make(owner, listing)

    assert made.file.publisher == listing.publisher
    lines = lines_of(made.file)
    assert {"prompt": [{"role": "user", "content": "Question 1"}], **answered("Good 1", "Bad 1")} in lines
    assert len(lines) == made.pairs.count() == 3
    raw = artifacts.read_blob(made.file.sha256, max_bytes=10**6)
    assert not any(user.username.encode() in raw for user in User.objects.all())
    assert {parse_line(line).format for line in raw.splitlines()} == {Format.PREFERENCE}


def test_only_editors_make_one_and_only_of_enough_people(version: Version, listing: Listing, owner: User) -> None:
    chat(agreeing(), version, ("A", None), ("B", None))

    with pytest.raises(preference_sets.NoPreferences):
        preference_sets.make(owner, listing)
    three_people(version)
    with pytest.raises(NotAllowed):
        preference_sets.make(making.join(listing.publisher, "member"), listing)
    assert not PreferenceSet.objects.exists()
    assert not UploadedFile.objects.exists()


def test_who_withdraws_is_taken_out_of_what_is_seen_and_of_every_data_set(version: Version, listing: Listing, owner: User) -> None:
    first, second, third = three_people(version)
    made = preference_sets.make(owner, listing)
    before = made.file.sha256

    preference_sets.withdraw(first)

    made.refresh_from_db()
    assert [line["chosen"][0]["content"] for line in lines_of(made.file)] == ["Good 2", "Good 1"]
    assert made.file.sha256 != before
    assert made.digests == [before, made.file.sha256]
    assert feedback.of_listing(listing).people == 2
    assert not PreferencePair.objects.filter(user=first).exists()

    preference_sets.withdraw(second)
    preference_sets.withdraw(third)
    assert not PreferenceSet.objects.exists()
    assert not UploadedFile.objects.exists()


def test_who_deletes_their_account_is_taken_out_too(version: Version, listing: Listing, owner: User) -> None:
    first, *_ = three_people(version)
    made = preference_sets.make(owner, listing)

    assert erasure.erase(first)

    made.refresh_from_db()
    assert [line["chosen"][0]["content"] for line in lines_of(made.file)] == ["Good 2", "Good 1"]


def test_a_deleted_chat_is_taken_out_too(version: Version, listing: Listing, owner: User) -> None:
    three_people(version)
    made = preference_sets.make(owner, listing)

    conversations.delete(Conversation.objects.get(title="Question 0"))

    made.refresh_from_db()
    assert [line["chosen"][0]["content"] for line in lines_of(made.file)] == ["Good 2", "Good 1"]


def test_the_page_tells_what_learned_from_a_set_also_after_it_was_written_anew(
    client: Client, version: Version, listing: Listing, owner: User
) -> None:
    first, *_ = three_people(version)
    made = preference_sets.make(owner, listing)
    params = {"file": made.file.sha256, "settings": {}}
    job = Job.objects.create(kind=Job.Kind.FINETUNE, publisher=listing.publisher, params=params, state=Job.State.SUCCEEDED)
    stranger = Job.objects.create(kind=Job.Kind.FINETUNE, publisher=making.make_publisher(), params=params)
    preference_sets.withdraw(first)
    made.refresh_from_db()

    assert preference_sets.used_in([made]) == {made.public_id: [(job, [])]}
    client.force_login(owner)
    page = client.get(f"/en/studio/gpts/{listing.full_name}/feedback/").text
    assert job.public_id in page
    assert stranger.public_id not in page


def test_what_was_withdrawn_is_not_trained_on_later(version: Version, listing: Listing, owner: User) -> None:
    first, *_ = three_people(version)
    made = preference_sets.make(owner, listing)
    fields: dict[str, Any] = {"kind": Job.Kind.FINETUNE, "publisher": listing.publisher, "created_by": owner}
    params = {"file": made.file.sha256, "settings": {}}
    waits, over, trains = (Job.objects.create(**fields, params=params, state=state) for state in ("queued", "cancelled", "running"))

    preference_sets.withdraw(first)

    for job in (waits, over, trains):
        job.refresh_from_db()
    assert [(job.state, job.error_code, bool(job.params["file"])) for job in (waits, over, trains)] == [
        ("failed", "data_withdrawn", False),
        ("cancelled", "data_withdrawn", False),
        ("running", "", True),
    ]
    with pytest.raises(NotRetriable):
        dispatch.retry(owner, over)


# ---------------------------------------------------------------- agreeing and judging


def test_agreeing_is_off_at_first_and_can_be_taken_back(client: Client) -> None:
    user = making.make_user()
    client.force_login(user)

    assert "You share nothing." in client.get("/en/chat/feedback/").text
    client.post("/en/chat/feedback/", {"agree": "yes"})
    assert feedback.has_agreed(user)
    assert "You share your feedback." in client.get("/en/chat/feedback/").text
    client.post("/en/chat/feedback/", {"agree": "no"})
    assert not feedback.has_agreed(user)


def test_an_answer_is_judged_by_who_asked_and_the_verdict_taken_back(client: Client, version: Version) -> None:
    user = making.make_user()
    conversation = chat(user, version, ("A", None))
    question, answer = conversation.messages.all()
    client.force_login(user)

    def judged(message: Message, liked: str) -> int:
        return client.post(f"/en/chat/messages/{message.public_id}/judge", {"liked": liked}).status_code

    for liked, kept in (("no", False), ("yes", True), ("", None)):
        assert judged(answer, liked) == 200
        answer.refresh_from_db()
        assert answer.liked is kept
    assert judged(question, "yes") == 404
    client.force_login(making.make_user())
    assert judged(answer, "no") == 404
    answer.refresh_from_db()
    assert answer.liked is None


def answered(chosen: str, rejected: str) -> dict[str, Any]:
    return {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))}
