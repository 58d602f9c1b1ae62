import pytest
from django.test import Client

from store.accounts import keys, publishers
from store.accounts.models import ApiKey, AuditEntry, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    root = User.objects.create_superuser("root", "root@example.org", "a long password")
    publishers.create_publisher(root, slug="acme", name="Acme")
    browser = Client()
    browser.force_login(root)
    return browser


@pytest.mark.parametrize("model", ["user", "publisher", "membership", "apikey", "auditentry"])
def test_every_list_opens_searches_and_shows_a_row(staff: Client, model: str) -> None:
    if model == "apikey":
        keys.create_key(User.objects.get(), name="laptop")

    listed = staff.get(f"/admin/accounts/{model}/", {"q": "a"})

    assert listed.status_code == 200
    row = staff.get(f"/admin/accounts/{model}/{pk_of(model)}/change/")
    assert row.status_code == 200


def pk_of(model: str) -> int:
    from django.apps import apps

    return int(apps.get_model("accounts", model).objects.values_list("pk", flat=True)[0])


def test_the_audit_log_can_be_neither_added_to_changed_nor_cleared_by_hand(staff: Client) -> None:
    entry = AuditEntry.objects.get()

    assert staff.get("/admin/accounts/auditentry/add/").status_code == 403
    assert staff.post(f"/admin/accounts/auditentry/{entry.pk}/change/", {"action": "nothing"}).status_code == 403
    assert staff.post(f"/admin/accounts/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post("/admin/accounts/auditentry/", {"action": "delete_selected", "_selected_action": entry.pk, "post": "yes"})

    entry.refresh_from_db()
    assert entry.action == "publisher.create"


def test_staff_revoke_a_key_and_the_audit_log_names_them(staff: Client) -> None:
    mo = User.objects.create_user("mo", "mo@example.org")
    key, secret = keys.create_key(mo, name="laptop")

    staff.post("/admin/accounts/apikey/", {"action": "revoke", "_selected_action": key.pk})

    assert keys.find_key(secret) is None
    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEntry.objects.get(action="api_key.revoke").actor == User.objects.get(username="root")


def test_staff_sign_in_where_everybody_does_so_that_their_second_factor_is_asked_for() -> None:
    answer = Client().get("/admin/", follow=True)

    assert answer.redirect_chain[-1][0].startswith("/en/account/login/?next=")
    mo = User.objects.create_user("mo", "mo@example.org", "a long password")
    browser = Client()
    browser.force_login(mo)
    assert browser.get("/admin/", follow=True).status_code == 403
