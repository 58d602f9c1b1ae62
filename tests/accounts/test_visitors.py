import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from store.accounts import visitors


def test_a_visitor_gets_a_signed_cookie_at_the_first_act_and_keeps_it() -> None:
    first = RequestFactory().post("/")
    assert visitors.visitor_of(first) == ""
    begun = visitors.begin_visit(first)
    response = HttpResponse()

    assert visitors.ensure_visitor(first, response) == begun

    cookie = response.cookies["visitor"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    second = RequestFactory().post("/")
    second.COOKIES["visitor"] = cookie.value
    again = HttpResponse()
    assert visitors.visitor_of(second) == begun
    assert visitors.ensure_visitor(second, again) == begun
    assert "visitor" not in again.cookies


def test_a_forged_visitor_cookie_is_nobody_and_is_replaced() -> None:
    request = RequestFactory().post("/")
    request.COOKIES["visitor"] = '"vis_someone"'
    response = HttpResponse()

    assert visitors.visitor_of(request) == ""
    assert visitors.ensure_visitor(request, response).startswith("vis_")
    assert "visitor" in response.cookies


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/store.sock", ""),
    ],
)
def test_a_network_is_an_ipv4_address_or_the_half_of_an_ipv6_one_that_a_household_shares(address: str, network: str) -> None:
    assert visitors.network_of(RequestFactory().get("/", REMOTE_ADDR=address)) == network
