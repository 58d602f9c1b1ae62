"""Two people at one draft: who saves second is told, keeps what they wrote, and gets what the first changed elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalog import editing, publishing, revisions, versions
from store.catalog.editing import EditedMeanwhile, fingerprints
from store.catalog.models import Version
from tests import making

FIELDS = ("a", "b", "c")
TEXTS = st.fixed_dictionaries(dict.fromkeys(FIELDS, st.sampled_from(["", "x", "y", "z"])))


@given(seen=TEXTS, theirs=TEXTS, mine=TEXTS)
def test_nothing_that_either_wrote_is_lost(seen: dict[str, str], theirs: dict[str, str], mine: dict[str, str]) -> None:
    try:
        editing.require_unchanged(fingerprints(seen), theirs=theirs, mine=mine)
    except EditedMeanwhile as error:
        merge = error.merge
        for name in FIELDS:
            both = theirs[name] != seen[name] and mine[name] != seen[name] and theirs[name] != mine[name]
            assert (name in merge.clashing) == both
            assert merge.values[name] == (theirs[name] if mine[name] == seen[name] else mine[name])
        editing.require_unchanged(fingerprints(theirs), theirs=theirs, mine=merge.values)  # and then it is saved
    else:
        assert all(theirs[name] in (seen[name], mine[name]) for name in FIELDS)


@pytest.mark.django_db
def test_the_texts_of_the_first_stay_until_the_second_has_seen_them() -> None:
    listing = making.make_listing(texts={"en": {"name": "Poet", "summary": "Writes.", "card": "# Card"}})
    owner = making.owner_of(listing.publisher)
    seen = fingerprints(revisions.current_texts(listing))
    first = {"en": {"name": "Poet", "summary": "Writes poems.", "card": "# Card"}}
    second = {"en": {"name": "The Poet", "summary": "Writes letters.", "card": "# Card"}}

    publishing.edit_texts(owner, listing, texts=first, seen=seen)
    with pytest.raises(EditedMeanwhile) as told:
        publishing.edit_texts(owner, listing, texts=second, seen=seen)

    assert revisions.current_texts(listing)["en.summary"] == "Writes poems."
    assert told.value.merge.clashing == ("en.summary",)
    assert told.value.merge.values["en.name"] == "The Poet"
    publishing.edit_texts(owner, listing, texts=second, seen=fingerprints(told.value.merge.theirs))
    assert revisions.current_texts(listing)["en.summary"] == "Writes letters."


@pytest.mark.django_db
def test_a_draft_version_is_not_overwritten_unseen() -> None:
    draft = making.draft_prompt(making.make_base())
    owner = making.owner_of(draft.listing.publisher)
    seen = fingerprints(versions.editable(draft))

    publishing.edit_version(owner, draft, seen=seen, change_log="Shorter")
    with pytest.raises(EditedMeanwhile) as told:
        publishing.edit_version(owner, draft, seen=seen, change_log="", instructions="Answer in rhyme.")

    assert told.value.merge.values == {"change_log": "Shorter", "instructions": "Answer in rhyme."}
    stored = Version.objects.get(pk=draft.pk)
    assert (stored.change_log, stored.instructions) == ("Shorter", draft.instructions)
