"""The wallet, its receipts, and a publisher's earnings."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from store.accounts.models import Publisher, User
from store.accounts.publishers import require_role
from store.billing import ledger, statements
from store.billing.models import Account


@login_required
@require_GET
def wallet(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    account = Account.objects.filter(user=request.user).first() or Account()
    context = {
        "account": account,
        "statement": statements.statement(account, before=request.GET.get("before", "")) if account.pk else None,
        "held": statements.held(account) if account.pk else [],
        "spent_micro": statements.spent_micro(account) if account.pk else 0,
        "publishers": statements.publishers_whose_money(request.user),
        "period_days": statements.PERIOD.days,
    }
    return render(request, "billing/wallet.html", context)


@login_required
@require_GET
def receipt(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    movement = statements.receipt(request.user, public_id)
    if movement is None:
        raise Http404
    return render(request, "billing/receipt.html", {"movement": movement})


@login_required
@require_GET
def earnings(request: HttpRequest, slug: str) -> HttpResponse:
    publisher = get_object_or_404(Publisher, slug=slug)
    require_role(request.user, publisher, *statements.EARNINGS_ROLES)
    account = ledger.earnings_of(publisher)
    listings = statements.earned_by_listing(account)
    context = {
        "publisher": publisher,
        "account": account,
        "statement": statements.statement(account, before=request.GET.get("before", "")),
        "listings": listings,
        "earned_micro": sum(row["total_micro"] for row in listings),
        "shares": statements.shares(),
        "period_days": statements.PERIOD.days,
    }
    return render(request, "billing/earnings.html", context)
