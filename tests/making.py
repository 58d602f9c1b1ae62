"""People, publishers, artifacts and GPTs for the tests, each made in one line by the acts of the store."""

from __future__ import annotations

import hashlib
import io
import itertools
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.models import Permission

from inference import protocol
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import create_publisher
from store.catalog import artifacts, listings, publishing, revisions
from store.catalog.models import Artifact, Listing, Version

_numbers = itertools.count(1)
FACTS = {"architecture": "LlamaForCausalLM", "parameters": 134_515_008, "context_length": 8192}


def make_user(name: str = "", **fields: Any) -> User:
    name = name or f"user-{next(_numbers)}"
    return User.objects.create_user(name, f"{name}@example.org", "correct horse 9", **fields)


def confirm_address(user: User) -> None:
    EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=True)


def make_reviewer(name: str = "") -> User:
    user = make_user(name)
    user.user_permissions.add(Permission.objects.get(content_type__app_label="moderation", codename="review"))
    return User.objects.get(pk=user.pk)  # without the cached permissions


def make_publisher(owner: User | None = None, slug: str = "") -> Publisher:
    slug = slug or f"publisher-{next(_numbers)}"
    return create_publisher(owner or make_user(), slug=slug, name=slug.title())


def join(publisher: Publisher, role: str, name: str = "") -> User:
    user = make_user(name)
    Membership.objects.create(publisher=publisher, user=user, role=role)
    return user


def owner_of(publisher: Publisher) -> User:
    return publisher.memberships.get(role=Membership.Role.OWNER).user


def make_artifact(**files: bytes) -> Artifact:
    """An artifact of small files, by default of one config.json that no other artifact has."""
    contents = {name.replace("_json", ".json"): raw for name, raw in files.items()}
    contents = contents or {"config.json": b'{"number": %d}' % next(_numbers)}
    listed = []
    for path, raw in contents.items():
        sha256, size = artifacts.put_blob(io.BytesIO(raw))
        git_oid = hashlib.sha1(b"blob %d\0" % size + raw).hexdigest()
        listed.append(protocol.ManifestFile(path, size, sha256, git_oid))
    return artifacts.record(artifacts.put_manifest(protocol.Manifest(tuple(listed))))


def make_listing(publisher: Publisher | None = None, slug: str = "", **fields: Any) -> Listing:
    publisher = publisher or make_publisher()
    slug = slug or f"gpt-{next(_numbers)}"
    fields = {"licence": "Apache-2.0", "languages": ["en"], "use_cases": ["chat"]} | fields
    fields.setdefault("texts", {"en": {"name": slug.title(), "summary": f"What {slug} does.", "card": "# Card"}})
    return listings.create_listing(owner_of(publisher), publisher, slug=slug, **fields)


def make_base(publisher: Publisher | None = None, slug: str = "", *, number: str = "1.0.0", **fields: Any) -> Version:
    """Released full weights that others may fine-tune."""
    listing = make_listing(publisher, slug, **{"allow_finetune": True} | fields)
    user = owner_of(listing.publisher)
    return release(publishing.create_weights_version(user, listing, number=number, artifact=make_artifact(), facts=FACTS))


def draft_prompt(base: Version, listing: Listing | None = None, *, number: str = "1.0.0", **fields: Any) -> Version:
    listing = listing or make_listing()
    fields = {"instructions": "Answer in one sentence.", "starters": ["What is a token?"]} | fields
    return publishing.create_prompt_version(owner_of(listing.publisher), listing, number=number, base=base, **fields)


def make_prompt(base: Version | None = None, listing: Listing | None = None, **fields: Any) -> Version:
    """A released prompt GPT."""
    return release(draft_prompt(base or make_base(), listing, **fields))


def make_adapter(base: Version, listing: Listing | None = None, *, number: str = "1.0.0") -> Version:
    """A released adapter."""
    listing = listing or make_listing()
    user = owner_of(listing.publisher)
    return release(publishing.create_adapter_version(user, listing, number=number, base=base, artifact=make_artifact()))


def make_trained(base: Version, listing: Listing | None = None, *, number: str = "1.0.0") -> Version:
    """Released weights, all of which were trained from those of `base`."""
    listing = listing or make_listing(allow_finetune=True)
    made = {"base": base, "artifact": make_artifact(), "facts": FACTS, "made_by": "job_trained"}
    return release(publishing.create_weights_version(owner_of(listing.publisher), listing, number=number, **made))


def release(version: Version, visibility: str = "public") -> Version:
    """What an approval does to a version and to the draft of its listing's texts."""
    publishing.seal(version)
    publishing.release(version)
    if (draft := revisions.latest(version.listing, "draft")) is not None:
        revisions.seal(draft)
        revisions.make_live(draft)
    listings.want_visibility(version.listing, visibility)
    listings.publish(version.listing, version=version)
    return Version.objects.select_related("listing__publisher").get(pk=version.pk)
