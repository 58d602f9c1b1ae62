"""The error pages say what happened in the reader's language, even when nothing else works."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils import translation
from redis.exceptions import ConnectionError

from store.errors import Conflict, NotAllowed, NotFound, TooMany
from store.pages import errors
from store.urls import handler400, handler403, handler404, handler500
from store.urls import urlpatterns as store_urls

RAISED: dict[str, Exception] = {
    "conflict": Conflict(),
    "forbidden": NotAllowed(),
    "missing": NotFound(),
    "limited": TooMany(retry_after_s=11.2),
    "defect": RuntimeError("defect"),
    "database": OperationalError("database is locked"),
    "broker": ConnectionError("Connection refused"),
}


def refuse(request: HttpRequest, name: str) -> HttpResponse:
    raise RAISED[name]


urlpatterns = [path("refuse/<str:name>/", refuse), *store_urls]
__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


@pytest.mark.django_db
@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("conflict", 409, "This has changed in the meantime."),
        ("forbidden", 403, "You may not do this."),
        ("missing", 404, "There is nothing here"),
        ("limited", 429, "Try again in 12 seconds."),
    ],
)
def test_a_refused_act_becomes_a_page_that_says_why(client: Client, name: str, status: int, said: str) -> None:
    response = client.get(f"/refuse/{name}/")

    assert response.status_code == status
    assert said in response.text
    assert response.headers.get("Retry-After") == ("12" if status == 429 else None)


@override_settings(ROOT_URLCONF=__name__)
def test_a_broken_page_is_answered_without_the_database(client: Client) -> None:
    client.raise_request_exception = False

    response = client.get("/refuse/defect/")

    assert response.status_code == 500
    assert "Something broke on our side" in response.text
    assert "defect" not in response.text


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("name", ["database", "broker"])
def test_what_is_away_for_a_moment_is_said_to_be_back_soon(client: Client, name: str) -> None:
    client.raise_request_exception = False

    response = client.get(f"/refuse/{name}/")

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert "Back in a moment" in response.text


@pytest.mark.parametrize("view", [errors.bad_request, errors.server_error])
def test_the_bare_pages_need_neither_session_nor_database(view: object) -> None:
    request = RequestFactory().get("/zh-hans/anything/")

    with translation.override("en"):
        response = view(request)  # type: ignore[operator]

    assert '<html lang="zh-Hans">' in response.text


@pytest.mark.django_db
def test_an_unknown_address_is_404_with_a_way_on(client: Client) -> None:
    response = client.get("/en/nothing/here/")

    assert response.status_code == 404
    assert 'action="/en/explore/"' in response.text


@pytest.mark.django_db
def test_an_expired_form_says_so() -> None:
    client = Client(enforce_csrf_checks=True)

    response = client.post("/en/account/login/", {"login": "x", "password": "y"})

    assert response.status_code == 403
    assert "This form has expired" in response.text


def test_an_unknown_host_gets_a_plain_400(client: Client) -> None:
    response = client.get("/en/", headers={"host": "evil.example"})

    assert response.status_code == 400
    assert "evil.example" not in response.text


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/en/gpts/a%00b/c/", "/en/publishers/%00/", "/en/chat/cnv_%00/"])
def test_a_nul_in_an_address_is_a_bad_request_on_every_database(client: Client, path: str) -> None:
    assert client.get(path).status_code == 400
