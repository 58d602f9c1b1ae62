"""Staff's view of people, publishers, keys and the audit log."""

from __future__ import annotations

from typing import Any

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from store.accounts.keys import revoke_key
from store.accounts.models import ApiKey, AuditEntry, Membership, Publisher, User

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]  # asks for the second factor too


class AppendOnlyAdmin(admin.ModelAdmin):
    """For records that may be read and never added, changed or deleted here: audit entries, ledger entries, decisions."""

    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in self.model._meta.fields]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ["user"]


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    list_display = ["username", "email", "language", "is_staff", "is_active", "date_joined", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active", "groups", "language"]
    search_fields = ["username", "email", "public_id"]
    date_hierarchy = "date_joined"
    readonly_fields = ["public_id", "last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password", "public_id"]}),
        (_("Person"), {"fields": ["first_name", "email", "language"]}),
        (_("Rights"), {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        (_("Dates"), {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["username", "email", "usable_password", "password1", "password2"]})]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # people are made inactive: what they did stays accounted for


@admin.register(Publisher)
class PublisherAdmin(admin.ModelAdmin):
    list_display = ["slug", "name", "kind", "is_demo", "verified_at", "created_at"]
    list_filter = ["kind", "is_demo", ("verified_at", admin.EmptyFieldListFilter)]
    search_fields = ["slug", "name", "public_id"]
    readonly_fields = ["public_id", "created_at"]
    inlines = [MembershipInline]


@admin.register(Membership)
class MembershipAdmin(admin.ModelAdmin):
    list_display = ["publisher", "user", "role", "created_at"]
    list_filter = ["role"]
    list_select_related = ["publisher", "user"]
    search_fields = ["publisher__slug", "user__username", "user__email"]
    autocomplete_fields = ["publisher", "user"]


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    """Keys are made by their owners, who alone see the secret; staff may revoke one."""

    list_display = ["prefix", "name", "user", "created_at", "last_used_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), "created_at"]
    list_select_related = ["user"]
    search_fields = ["prefix", "name", "user__username", "user__email", "public_id"]
    fields = ["public_id", "user", "name", "prefix", "created_at", "last_used_at", "revoked_at"]
    readonly_fields = ["public_id", "user", "name", "prefix", "created_at", "last_used_at", "revoked_at"]
    actions = ["revoke"]

    @admin.action(description=_("Revoke the chosen keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        assert isinstance(request.user, User)
        for key in queryset:
            revoke_key(request.user, key)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AuditEntry)
class AuditEntryAdmin(AppendOnlyAdmin):
    list_display = ["created_at", "action", "target", "actor", "request_id"]
    list_filter = ["action", "created_at"]
    list_select_related = ["actor"]
    search_fields = ["action", "target", "actor__username", "request_id"]
    date_hierarchy = "created_at"
