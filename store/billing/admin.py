"""The ledger as staff see it: nothing can be added, changed or deleted; giving credit is an act with its own form."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _

from store.accounts.admin import AppendOnlyAdmin
from store.accounts.models import User
from store.billing import ledger, prices
from store.billing.models import Account, Entry, Reservation, Transaction
from store.errors import DomainError


class GrantForm(forms.Form):
    user = forms.ModelChoiceField(
        User.objects.filter(is_active=True), to_field_name="username", widget=forms.TextInput, label=_("Username")
    )
    amount = forms.DecimalField(label=_("Amount"), decimal_places=6, max_digits=13, help_text=_("In units of the store's currency."))
    memo = forms.CharField(label=_("Memo"), required=False, max_length=200, help_text=_("Shown on the person's wallet page."))
    cause = forms.CharField(widget=forms.HiddenInput, max_length=60)  # pressed twice, given once


@admin.register(Account)
class AccountAdmin(AppendOnlyAdmin):
    change_list_template = "admin/billing/account/change_list.html"
    list_display = ("public_id", "kind", "user", "publisher", "balance_micro", "held_micro", "created_at")
    list_filter = ("kind",)
    search_fields = ("public_id", "user__username", "user__email", "publisher__slug")
    list_select_related = ("user", "publisher")

    def get_urls(self) -> list[URLPattern]:
        grant = path("grant/", self.admin_site.admin_view(self.grant_credit), name="billing_account_grant")
        return [grant, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_grant = request.user.has_perm("billing.grant_credit")
        return super().changelist_view(request, {**(extra_context or {}), "may_grant": may_grant})

    def grant_credit(self, request: HttpRequest) -> HttpResponse:
        if not (isinstance(request.user, User) and request.user.has_perm("billing.grant_credit")):
            raise PermissionDenied
        form = GrantForm(request.POST or None, initial={"cause": str(uuid.uuid4()), "user": request.GET.get("user", "")})
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            try:
                ledger.grant(
                    request.user, given["user"], prices.micro(given["amount"]), cause=f"grant:{given['cause']}", memo=given["memo"]
                )
            except DomainError as error:
                form.add_error("amount", str(error))
            else:
                messages.success(request, _("Credit granted to %(user)s.") % {"user": given["user"].username})
                return redirect("admin:billing_account_changelist")
        context = {**self.admin_site.each_context(request), "title": _("Grant credit"), "form": form, "opts": self.model._meta}
        return TemplateResponse(request, "admin/billing/account/grant.html", context)


class EntryInline(admin.TabularInline):
    model = Entry
    fields = ("account", "amount_micro", "reason", "version")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Transaction)
class TransactionAdmin(AppendOnlyAdmin):
    inlines = (EntryInline,)
    list_display = ("public_id", "kind", "cause", "memo", "created_at")
    list_filter = ("kind", "created_at")
    search_fields = ("public_id", "cause", "memo")


@admin.register(Entry)
class EntryAdmin(AppendOnlyAdmin):
    list_display = ("transaction", "account", "amount_micro", "reason", "version")
    list_filter = ("reason", "account__kind")
    search_fields = ("transaction__public_id", "transaction__cause", "account__user__username", "account__publisher__slug")
    list_select_related = ("transaction", "account__user", "account__publisher", "version__listing__publisher")


@admin.register(Reservation)
class ReservationAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "cause", "account", "amount_micro", "settled_micro", "state", "expires_at")
    list_filter = ("state", "expires_at")
    search_fields = ("public_id", "cause", "account__user__username")
    list_select_related = ("account__user",)
