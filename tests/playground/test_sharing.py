"""Shared by link: a copy of that moment, read-only, revocable, not indexed, without the account and the instructions."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.db import IntegrityError, transaction
from django.test import Client

from store.accounts.models import User
from store.catalog import listings
from store.catalog.models import Version
from store.errors import NotFound, TooMany
from store.generation.errors import SignInNeeded
from store.playground import conversations, sharing
from store.playground.errors import BadName, NothingToShare, NotShareable, Revoked
from store.playground.models import Conversation, Share
from tests import making

pytestmark = pytest.mark.django_db
ROBOTS = "noindex, nofollow, noarchive"


@pytest.fixture
def user() -> User:
    return making.make_user("zoe-at-home", first_name="Zoe Private")


@pytest.fixture
def poet() -> Version:
    return making.make_prompt(listing=making.make_listing(slug="poet"), instructions="Rhyme in secret.")


@pytest.fixture
def conversation(user: User, poet: Version) -> Conversation:
    kept = Conversation.objects.create(version=poet, user=user, title="On rhyme", parameters={"seed": 7})
    kept.messages.create(role="user", text="What rhymes?")
    kept.messages.create(role="assistant", text="An old answer.", replaced_at=kept.created_at)
    kept.messages.create(role="assistant", text="**Time** and <script>alert(1)</script>")
    return kept


def page_of(share: Share, client: Client | None = None) -> tuple[int, str]:
    answer = (client or Client()).get(f"/en/chat/shared/{share.public_id}/")
    assert answer.headers.get("X-Robots-Tag", ROBOTS) == ROBOTS
    return answer.status_code, answer.text


def test_whoever_has_the_address_reads_the_thread_and_nothing_of_the_account(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user)

    client = Client()
    answer = client.get(f"/en/chat/shared/{share.public_id}/")

    assert answer.headers["X-Robots-Tag"] == ROBOTS
    assert answer.headers["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    assert f'<meta name="robots" content="{ROBOTS}">' in answer.text
    assert "What rhymes?" in answer.text
    assert "<strong>Time</strong> and &lt;script&gt;" in answer.text
    assert "This is the conversation as it was on" in answer.text
    for hidden in (
        user.username,
        user.first_name,
        user.email,
        user.public_id,
        conversation.public_id,
        "An old answer.",
        "Rhyme in secret.",
    ):
        assert hidden not in answer.text
    assert not client.cookies
    assert len(share.public_id) == 24  # 100 random bits
    assert "时的对话；之后写的内容不在此处" in client.get(f"/zh-hans/chat/shared/{share.public_id}/").text


def test_it_stays_as_it_was_when_it_was_shared(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user)

    conversations.rename(conversation, title="Later title")
    conversation.messages.create(role="user", text="And later?")
    conversation.messages.create(role="assistant", text="Later answer.")

    status, page = page_of(share)
    assert "On rhyme" in page
    assert "ater" not in page.replace("what was written later is not here", "")


def test_instructions_are_in_no_page_share_or_export(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user, name="Zoe")
    owner = Client()
    owner.force_login(user)
    here = f"/en/chat/{conversation.public_id}/"

    for page in (here, f"{here}export.md", f"{here}export.json", f"/en/chat/shared/{share.public_id}/", "/en/chat/"):
        answer = owner.get(page)
        assert answer.status_code == 200
        assert "Rhyme in secret." not in answer.text, page
    assert "Rhyme in secret." not in str(share.messages)


def test_taken_back_it_answers_410_and_keeps_nothing_that_was_said(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user, name="Zoe")
    owner = Client()
    owner.force_login(user)
    assert "Stop sharing" in page_of(share, owner)[1]
    assert "Stop sharing" not in page_of(share)[1]

    assert owner.post(f"/en/chat/{conversation.public_id}/unshare").headers["Location"] == f"/en/chat/{conversation.public_id}/"

    status, page = page_of(share, owner)
    assert (status, "What rhymes?" in page, "On rhyme" in page) == (410, False, False)
    share.refresh_from_db()
    assert (share.messages, share.title, share.name) == ([], "", "")
    with pytest.raises(Revoked):
        sharing.find(share.public_id)


def test_shared_anew_the_old_address_is_gone_and_with_the_conversation_the_new_one_too(user: User, conversation: Conversation) -> None:
    first = sharing.share(conversation, user=user)
    second = sharing.share(conversation, user=user)

    assert (page_of(first)[0], page_of(second)[0]) == (410, 200)
    assert sharing.live(conversation) == second
    with pytest.raises(IntegrityError), transaction.atomic():
        Share.objects.filter(pk=first.pk).update(revoked_at=None)
    conversations.delete(conversation)
    assert page_of(second)[0] == 404


def test_only_its_own_person_with_an_account_shares_or_takes_back(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user)
    stranger = Client()
    stranger.force_login(making.make_user())

    for act in ("share", "unshare"):
        assert stranger.post(f"/en/chat/{conversation.public_id}/{act}").status_code == 404
    assert stranger.get(f"/en/chat/{share.public_id}/").status_code == 404
    with pytest.raises(SignInNeeded):
        sharing.share(conversation, user=None)

    assert sharing.live(conversation) == share


def test_what_not_everybody_can_use_is_not_shared_and_what_is_suspended_is_not_shown(user: User, conversation: Conversation) -> None:
    share = sharing.share(conversation, user=user)
    draft = Conversation.objects.create(version=making.draft_prompt(making.make_base()), user=user, title="Draft")
    draft.messages.create(role="user", text="Hi")

    with pytest.raises(NotShareable):
        sharing.share(draft, user=user)
    listings.suspend(conversation.version.listing)
    assert page_of(share)[0] == 404
    listings.restore(conversation.version.listing)
    assert page_of(share)[0] == 200
    with pytest.raises(NotFound):
        sharing.find("shr_nothing")


@pytest.mark.parametrize("name", ["x" * 41, "a\u202egnp", "a\0b", "a\u200bb"])
def test_a_name_is_one_short_visible_line(user: User, conversation: Conversation, name: str) -> None:
    with pytest.raises(BadName):
        sharing.share(conversation, user=user, name=name)

    assert sharing.live(conversation) is None


def test_a_name_is_shown_as_text_and_limits_hold(user: User, conversation: Conversation, settings: LazySettings) -> None:
    settings.SHARES_PER_DAY = 1
    empty = Conversation.objects.create(version=conversation.version, user=user, title="Empty")
    with pytest.raises(NothingToShare):
        sharing.share(empty, user=user)

    share = sharing.share(conversation, user=user, name=" <b>Zoe</b>\n 佐伊 ")
    with pytest.raises(TooMany):
        sharing.share(conversation, user=user)

    assert "shared by &lt;b&gt;Zoe&lt;/b&gt; 佐伊" in page_of(share)[1]
