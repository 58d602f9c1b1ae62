"""Signing up, in and out, and the account pages, through a browser's eyes."""

import re
from urllib.parse import urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core import mail
from django.test import Client
from django.urls import reverse

from store.accounts import keys, publishers, sign_in, visitors
from store.accounts.models import ApiKey, Membership, User

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture
def lin() -> User:
    user = User.objects.create_user("lin", "lin@example.org", PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=True)
    return user


def signed_in(user: User) -> Client:
    browser = Client()
    answer = browser.post("/en/account/login/", {"login": user.username, "password": PASSWORD})
    assert answer.status_code == 302
    return browser


def confirmed(browser: Client) -> Client:
    """What changes how an account is protected asks for the password once more."""
    assert browser.post("/en/account/reauthenticate/", {"password": PASSWORD, "next": "/en/account/"}).status_code == 302
    return browser


def link_in_mail() -> str:
    (link,) = re.findall(r"https?://\S+", mail.outbox[-1].body)[:1]
    return urlsplit(link).path


def totp_code(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


# ---------------------------------------------------------------- signing up, in and out


def test_the_sign_in_page_says_in_its_language_what_it_asks_for() -> None:
    page = Client().get("/zh-hans/account/login/").text

    assert [label for label in ("用户名或邮箱", "密码", "保持登录") if label not in page] == []
    assert "placeholder" not in page.partition("<main")[2].partition("</main>")[0]


def test_who_signs_up_on_a_chinese_page_is_written_to_in_chinese_and_confirms_their_address() -> None:
    browser = Client()

    answer = browser.post("/zh-hans/account/signup/", {"email": "mei@example.org", "username": "mei", "password1": PASSWORD})

    assert answer.status_code == 302
    mei = User.objects.get()
    assert mei.language == "zh-hans"
    assert browser.get("/zh-hans/account/").status_code == 200
    assert mail.outbox[0].to == ["mei@example.org"]
    confirm = link_in_mail()
    assert not EmailAddress.objects.get().verified
    assert browser.get(confirm).status_code == 200
    assert not EmailAddress.objects.get().verified  # mail scanners follow links
    browser.post(confirm)
    assert EmailAddress.objects.get().verified


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"email": "no address"}, "email"),
        ({"username": "a"}, "username"),
        ({"password1": "short"}, "password1"),
        ({"password1": "1234567890"}, "password1"),
    ],
)
def test_a_sign_up_with_a_bad_field_says_so_there_and_makes_nobody(fields: dict[str, str], names: str) -> None:
    data = {"email": "mei@example.org", "username": "mei", "password1": PASSWORD, **fields}

    answer = Client().post("/en/account/signup/", data)

    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [names]
    assert not User.objects.exists()


def test_what_a_visitor_did_is_handed_to_who_signs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    adopted: list[tuple[User, str]] = []
    monkeypatch.setattr(sign_in, "_on_sign_in", [lambda user, visitor: adopted.append((user, visitor))])
    browser = Client()
    visitor = given_visitor(browser)

    browser.post("/en/account/signup/", {"email": "mei@example.org", "username": "mei", "password1": PASSWORD})

    assert adopted == [(User.objects.get(), visitor)]
    assert browser.cookies["visitor"].value == ""


def given_visitor(browser: Client) -> str:
    from django.http import HttpResponse
    from django.test import RequestFactory

    response = HttpResponse()
    visitor = visitors.ensure_visitor(RequestFactory().post("/"), response)
    browser.cookies["visitor"] = response.cookies["visitor"].value
    return visitor


def test_signing_in_by_name_or_address_and_out_again(lin: User) -> None:
    for login in ("lin", "lin@example.org"):
        browser = Client()
        assert browser.get("/en/account/").status_code == 302
        browser.post("/en/account/login/", {"login": login, "password": PASSWORD})
        assert browser.get("/en/account/").status_code == 200

        browser.post("/en/account/logout/")

        assert browser.get("/en/account/").status_code == 302


def test_a_wrong_password_signs_nobody_in(lin: User) -> None:
    browser = Client()

    answer = browser.post("/en/account/login/", {"login": "lin", "password": "something else"})

    assert answer.context["form"].non_field_errors()
    assert browser.get("/en/account/").status_code == 302


def test_a_forgotten_password_is_reset_by_a_link_that_works_once(lin: User) -> None:
    browser = Client()
    browser.post("/en/account/password/reset/", {"email": "lin@example.org"})
    link = link_in_mail()

    form = browser.get(link, follow=True)
    browser.post(form.redirect_chain[-1][0], {"password1": "another good one", "password2": "another good one"})

    lin.refresh_from_db()
    assert lin.check_password("another good one")
    assert "was reset" in mail.outbox[-1].body
    assert b"expired" in Client().get(link, follow=True).content


def test_asking_to_reset_the_password_of_nobody_answers_alike(lin: User) -> None:
    known = Client().post("/en/account/password/reset/", {"email": "lin@example.org"})
    unknown = Client().post("/en/account/password/reset/", {"email": "nobody@example.org"})

    assert (known.status_code, known.url) == (unknown.status_code, unknown.url)
    assert "there is none in this store" in mail.outbox[-1].body


def test_mail_is_in_its_readers_language_whatever_the_page_was_in(lin: User) -> None:
    User.objects.filter(pk=lin.pk).update(language="zh-hans")

    Client().post("/en/account/password/reset/", {"email": "lin@example.org"})

    assert "/en/account/password/reset/key/" in mail.outbox[-1].body  # the link keeps the page's language
    assert "lin" in mail.outbox[-1].body


# ---------------------------------------------------------------- second factor


def test_an_authenticator_app_is_turned_on_and_asked_for_at_the_next_sign_in(lin: User) -> None:
    browser = signed_in(lin)
    assert "/reauthenticate/" in browser.get("/en/account/2fa/totp/activate/").url
    assert confirmed(browser).get("/en/account/2fa/totp/activate/").status_code == 200

    wrong = browser.post("/en/account/2fa/totp/activate/", {"code": "000000"})
    assert wrong.status_code == 200
    assert not Authenticator.objects.exists()
    secret = browser.session["mfa.totp.secret"]
    browser.post("/en/account/2fa/totp/activate/", {"code": totp_code(secret)})

    assert set(Authenticator.objects.values_list("type", flat=True)) == {"totp", "recovery_codes"}
    codes = browser.get("/en/account/2fa/recovery-codes/").context["unused_codes"]
    another = Client()
    half = another.post("/en/account/login/", {"login": "lin", "password": PASSWORD})
    assert half.url == "/en/account/2fa/authenticate/"
    assert another.get("/en/account/").status_code == 302
    another.post("/en/account/2fa/authenticate/", {"code": codes[0]})
    assert another.get("/en/account/").status_code == 200


# ---------------------------------------------------------------- every page is in the store's look and obeys the content policy

ENTRANCES = ["login", "signup", "password/reset", "password/reset/done", "confirm-email", "inactive"]
MANAGED = [
    *("", "security/", "keys/", "publishers/", "email/", "password/change/", "logout/", "sessions/"),
    *("2fa/", "2fa/totp/activate/", "2fa/webauthn/add/", "2fa/webauthn/", "2fa/recovery-codes/generate/", "reauthenticate/"),
]


def assert_our_look(html: str) -> None:
    assert 'class="site-header"' in html
    assert re.findall(r"<h1[ >]", html) == ["<h1>"]
    assert not re.findall(r"\sstyle=|\son\w+=|javascript:", html)
    for attributes, body in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL):
        assert "application/json" in attributes or ("src=" in attributes and not body.strip())


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("page", ENTRANCES)
def test_the_pages_around_signing_in(page: str, language: str) -> None:
    answer = Client().get(f"/{language}/account/{page}/", follow=True)

    assert answer.status_code == 200
    assert_our_look(answer.content.decode())


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_the_pages_of_an_account(lin: User, language: str) -> None:
    browser = confirmed(signed_in(lin))
    Authenticator.objects.create(user=lin, type="recovery_codes", data={"seed": "0" * 32, "used_mask": 0, "migrated_codes": ["abcd1234"]})

    for page in [*MANAGED, "2fa/recovery-codes/"]:
        answer = browser.get(f"/{language}/account/{page}")
        assert answer.status_code == 200, page
        assert_our_look(answer.content.decode())


# ---------------------------------------------------------------- profile, keys, members


def test_a_profile_is_changed_and_the_page_goes_on_in_the_new_language(lin: User) -> None:
    answer = signed_in(lin).post("/en/account/", {"name": "Lin Yi", "language": "zh-hans"})

    assert answer.url == "/zh-hans/account/"
    lin.refresh_from_db()
    assert (lin.first_name, lin.language) == ("Lin Yi", "zh-hans")


def test_a_profile_in_an_unknown_language_is_refused(lin: User) -> None:
    answer = signed_in(lin).post("/en/account/", {"name": "Lin", "language": "tlh"})

    assert answer.status_code == 400
    lin.refresh_from_db()
    assert (lin.first_name, lin.language) == ("", "en")


def test_a_key_is_shown_once_and_never_again(lin: User) -> None:
    browser = signed_in(lin)

    made = browser.post("/en/account/keys/", {"name": "laptop"})

    assert made.status_code == 201
    assert "no-store" in made["cache-control"]
    secret = made.context["secret"]
    assert secret in made.content.decode()
    found = keys.find_key(secret)
    assert found is not None
    assert found.user == lin
    again = browser.get("/en/account/keys/").content.decode()
    assert secret not in again
    assert found.prefix in again


def test_a_key_is_revoked_by_its_owner_and_by_nobody_else(lin: User) -> None:
    key, secret = keys.create_key(lin, name="laptop")
    stranger = User.objects.create_user("mo", "mo@example.org", PASSWORD)
    address = f"/en/account/keys/{key.public_id}/revoke/"

    assert signed_in(stranger).post(address).status_code == 404
    assert keys.find_key(secret) is not None
    browser = signed_in(lin)
    assert browser.get(address).status_code == 405
    browser.post(address)
    assert keys.find_key(secret) is None
    assert ApiKey.objects.get().revoked_at is not None


def test_owners_add_and_remove_members_and_strangers_see_nothing(lin: User) -> None:
    mo = User.objects.create_user("mo", "mo@example.org", PASSWORD)
    publisher = publishers.create_publisher(lin, slug="acme", name="Acme")
    address = reverse("accounts:members", args=["acme"])
    browser = signed_in(lin)

    assert signed_in(mo).get(address).status_code == 404
    assert browser.post(address, {"username": "nobody", "role": "member"}).status_code == 400
    browser.post(address, {"username": "mo", "role": "member"})
    assert publisher.role_of(mo) == "member"
    assert signed_in(mo).post(address, {"username": "lin", "role": "member"}).status_code == 403
    assert publisher.role_of(lin) == "owner"
    browser.post(reverse("accounts:remove_member", args=["acme", mo.public_id]))
    assert Membership.objects.count() == 1
    browser.post(reverse("accounts:remove_member", args=["acme", lin.public_id]))
    assert publisher.role_of(lin) == "owner"  # the last one stays
