"""Names by which one publisher would be taken for another, and what a name may not hold."""

from __future__ import annotations

import pytest
from django.utils import timezone

from store.accounts import lookalikes
from store.accounts.models import Publisher
from store.accounts.publishers import InvalidPublisher, create_publisher
from store.catalog.errors import InvalidText
from store.catalog.revisions import clean_texts
from tests import making

IMITATIONS = {
    "Cyrillic": ("Mistral", "Мistrаl"),
    "a capital I for an l": ("Paypal", "PaypaI"),
    "a zero": ("Open Labs", "0pen Labs"),
    "full width": ("Acme", "Ａｃｍｅ 　"),
    "mathematical": ("Harbour", "𝐇𝐚𝐫𝐛𝐨𝐮𝐫"),
    "r and n": ("Mistral", "rnistral"),
    "two v": ("Works", "VVorks"),
    "accents": ("Lumen", "Lümen"),
    "punctuation": ("Open Labs", "Open.Labs"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("known", "imitation"), IMITATIONS.values(), ids=IMITATIONS)
def test_nobody_takes_anothers_name_in_other_letters(known: str, imitation: str) -> None:
    owner = making.make_user()
    create_publisher(owner, slug="known", name=known)

    with pytest.raises(InvalidPublisher) as refused:
        create_publisher(making.make_user(), slug="another", name=imitation)

    assert refused.value.param == "name"
    assert create_publisher(owner, slug="another", name=imitation)  # their own they may


@pytest.mark.django_db
@pytest.mark.parametrize("imitation", ["rnistral", "m-istral", "mis-tral", "mistra1"])
def test_nobody_takes_an_address_that_looks_like_anothers(imitation: str) -> None:
    create_publisher(making.make_user(), slug="mistral", name="Known")

    with pytest.raises(InvalidPublisher) as refused:
        create_publisher(making.make_user(), slug=imitation, name="Another")

    assert refused.value.param == "slug"


@pytest.mark.django_db
def test_people_may_share_a_name_but_not_that_of_a_verified_publisher() -> None:
    first = create_publisher(making.make_user(), slug="first", name="Anna Berg")
    create_publisher(making.make_user(), slug="second", name="anna  berg")
    Publisher.objects.filter(pk=first.pk).update(verified_at=timezone.now())

    with pytest.raises(InvalidPublisher):
        create_publisher(making.make_user(), slug="third", name="Anna Berg")

    assert create_publisher(making.make_user(), slug="fourth", name="海港工坊").skeleton == "海港工坊"


HIDDEN = {
    "zero width": "Har\u200bbour",
    "turned": "\u202eruobraH",
    "soft hyphen": "Har\u00adbour",
    "tag": "Harbour\U000e0041",
    "marks": "Ha" + "\u0301" * 9,
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", HIDDEN.values(), ids=HIDDEN)
def test_a_name_holds_nothing_that_hides_or_turns(name: str) -> None:
    with pytest.raises(InvalidPublisher):
        create_publisher(making.make_user(), slug="harbour", name=name)
    with pytest.raises(InvalidText):
        clean_texts({"en": {"name": name, "summary": "What it does.", "card": ""}})


def test_names_of_scripts_that_need_joiners_and_marks_are_names() -> None:
    for name in ("می‌خواهم", "क्‍ष", "Việt Nam", "👩‍💻 Coder", "שָׁלוֹם", "ไทย"):
        assert lookalikes.is_seen_as_written(name), name
