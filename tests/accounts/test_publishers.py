import pytest
import structlog
from django.contrib.auth.models import AnonymousUser

from store.accounts import publishers
from store.accounts.models import AuditEntry, Membership, Publisher, User
from store.errors import NotAllowed, NotFound

pytestmark = pytest.mark.django_db


def person(name: str) -> User:
    return User.objects.create_user(name, f"{name}@example.org")


def test_who_creates_a_publisher_owns_it_and_the_audit_log_says_so() -> None:
    lin = person("lin")

    with structlog.contextvars.bound_contextvars(request_id="abc"):
        publisher = publishers.create_publisher(lin, slug="Acme-Lab", name="Acme Lab")

    assert publisher.slug == "acme-lab"
    assert publisher.role_of(lin) == "owner"
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target) == (lin, "publisher.create", publisher.public_id)
    assert (entry.detail, entry.request_id) == ({"slug": "acme-lab"}, "abc")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"slug": ""}, "slug"),
        ({"slug": "-a"}, "slug"),
        ({"slug": "a b"}, "slug"),
        ({"slug": "x" * 49}, "slug"),
        ({"slug": "智能"}, "slug"),
        ({"name": " "}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"kind": "robot"}, "kind"),
        ({"about": "x" * 2001}, "about"),
    ],
)
def test_a_publisher_with_an_unusable_field_is_refused_by_its_name(fields: dict[str, str], param: str) -> None:
    lin = person("lin")

    with pytest.raises(publishers.InvalidPublisher) as refused:
        publishers.create_publisher(lin, **{"slug": "acme", "name": "Acme", **fields})

    assert refused.value.param == param
    assert not Publisher.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("slug", ["acme", "admin", "v1"])
def test_a_taken_or_reserved_name_is_refused(slug: str) -> None:
    publishers.create_publisher(person("lin"), slug="acme", name="Acme")

    with pytest.raises(publishers.SlugTaken):
        publishers.create_publisher(person("mo"), slug=slug, name="Another")

    assert Publisher.objects.count() == 1
    assert Membership.objects.count() == 1


def test_a_stranger_finds_nothing_and_a_member_in_a_lower_role_is_refused() -> None:
    lin, mo = person("lin"), person("mo")
    publisher = publishers.create_publisher(lin, slug="acme", name="Acme")
    publishers.add_member(lin, publisher, user=mo, role="member")

    publishers.require_role(lin, publisher, "owner", "maintainer")
    publishers.require_role(mo, publisher)
    with pytest.raises(NotAllowed):
        publishers.require_role(mo, publisher, "owner", "maintainer")
    for stranger in (person("eve"), AnonymousUser(), None):
        with pytest.raises(NotFound):
            publishers.require_role(stranger, publisher)


def test_only_an_owner_adds_and_removes_members() -> None:
    lin, mo, eve = person("lin"), person("mo"), person("eve")
    publisher = publishers.create_publisher(lin, slug="acme", name="Acme")
    publishers.add_member(lin, publisher, user=mo, role="maintainer")

    with pytest.raises(NotAllowed):
        publishers.add_member(mo, publisher, user=eve, role="member")
    with pytest.raises(NotAllowed):
        publishers.remove_member(mo, publisher, user=lin)
    with pytest.raises(NotFound):
        publishers.remove_member(eve, publisher, user=mo)

    assert set(publisher.members.all()) == {lin, mo}
    publishers.remove_member(mo, publisher, user=mo)
    assert set(publisher.members.all()) == {lin}


def test_the_last_owner_can_neither_leave_nor_step_down() -> None:
    lin, mo = person("lin"), person("mo")
    publisher = publishers.create_publisher(lin, slug="acme", name="Acme")

    with pytest.raises(publishers.LastOwner):
        publishers.remove_member(lin, publisher, user=lin)
    with pytest.raises(publishers.LastOwner):
        publishers.add_member(lin, publisher, user=lin, role="member")
    assert publisher.role_of(lin) == "owner"

    publishers.add_member(lin, publisher, user=mo, role="owner")
    publishers.remove_member(lin, publisher, user=lin)
    assert publisher.role_of(lin) is None
