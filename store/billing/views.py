"""The wallet, its receipts, and a publisher's earnings."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from store.accounts.models import Publisher, User
from store.accounts.publishers import require_role
from store.billing import access, ledger, prices, statements
from store.billing.models import Account
from store.billing.prices import Price
from store.catalog.models import Listing
from store.errors import DomainError, NotFound


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
        "accesses": [(held, access.refundable_micro(held)) for held in access.running(request.user)],
    }
    return render(request, "billing/wallet.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def buy_access(request: HttpRequest, public_id: str) -> HttpResponse:
    """What 30 days of a GPT mean, and the button that buys them."""
    assert isinstance(request.user, User)
    reachable = Listing.objects.for_cards().reachable_by(request.user).filter(public_id=public_id, current_version__isnull=False)
    listing = reachable.filter(monthly_price_micro__gt=0).first()
    if listing is None:
        raise NotFound
    trouble, status = "", 200
    if request.method == "POST":
        shown = {name: request.POST.get(name, "") for name in ("price_micro", "tokens")}
        numbers = {name: int(said) if said.isascii() and said.isdigit() and len(said) < 12 else 0 for name, said in shown.items()}
        try:
            access.buy(request.user, listing, **numbers)
        except DomainError as error:
            trouble, status = str(error), error.status
        else:
            messages.success(request, _("You have access for 30 days."))
            return redirect("billing:wallet")
    wallet = Account.objects.filter(user=request.user).first()
    whole, own = prices.of_listing(listing), prices.asked(listing)
    context = {
        "listing": listing,
        "held": access.of(request.user, listing),
        "until": timezone.now() + access.PERIOD,
        "asked": own,
        "rest": Price(whole.input_micro - own.input_micro, whole.output_micro - own.output_micro),
        "refund_days": access.REFUND_WITHIN.days,
        "refund_percent": access.REFUND_UP_TO_PERCENT,
        "available_micro": wallet.available_micro if wallet else 0,
        "trouble": trouble,
    }
    return render(request, "billing/access.html", context, status=status)


@login_required
@require_POST
def set_renewal(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    access.set_renewal(request.user, public_id, renews=request.POST.get("renews") == "1")
    messages.success(request, _("Saved."))
    return redirect("billing:wallet")


@login_required
@require_POST
def refund(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    access.refund(request.user, public_id)
    messages.success(request, _("It is given back, and the access has ended."))
    return redirect("billing:wallet")


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
