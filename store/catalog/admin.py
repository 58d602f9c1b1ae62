"""Staff's view of the catalogue. What was sealed, and every state, changes only by the acts of publishing and moderation."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest

from store.accounts.admin import AppendOnlyAdmin
from store.catalog import search
from store.catalog.models import Ancestry, Artifact, Collection, Listing, ListingRevision, ListingText, Measurement, Tag, UseCase, Version


class ReadOnlyInline(admin.TabularInline):
    extra = 0
    can_delete = False
    show_change_link = True

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class VersionInline(ReadOnlyInline):
    model = Version
    fk_name = "listing"
    fields = ("number", "kind", "state", "base", "created_at", "released_at")


class TextInline(ReadOnlyInline):
    model = ListingText
    fields = ("language", "name", "summary", "card")


class AncestryInline(ReadOnlyInline):
    model = Ancestry
    fk_name = "version"
    fields = ("ancestor", "depth")
    verbose_name_plural = "lineage"


class MeasurementInline(ReadOnlyInline):
    model = Measurement
    fields = ("name", "value", "low", "high", "base_value", "unit", "made_by", "created_at")


@admin.register(UseCase)
class UseCaseAdmin(admin.ModelAdmin):
    list_display = ("slug", "name_en", "name_zh", "icon", "position", "synonyms")
    list_editable = ("position",)
    search_fields = ("slug", "name_en", "name_zh")


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):
    list_display = ("slug",)
    search_fields = ("slug",)


@admin.register(Listing)
class ListingAdmin(admin.ModelAdmin):
    """Staff may feature a listing and correct its use cases and tags; prices, texts and states have acts of their own."""

    list_display = ("full_name", "public_id", "visibility", "current_version", "suspended_at", "featured", "request_count", "published_at")
    list_filter = ("visibility", ("suspended_at", admin.EmptyFieldListFilter), "current_version__kind", "use_cases", "publisher__is_demo")
    list_editable = ("featured",)
    search_fields = ("public_id",)  # and whatever visitors find it by
    list_select_related = ("publisher", "current_version__listing__publisher")
    date_hierarchy = "created_at"
    filter_horizontal = ("use_cases", "tags")
    inlines = (VersionInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["public_id", *(field.name for field in Listing._meta.fields if field.name != "featured")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """By the words that visitors find it with, drafts too, or by its public id."""
        if not search_term.strip():
            return queryset, False
        return queryset.filter(Q(public_id=search_term.strip()) | Q(pk__in=search.anywhere(search_term))), False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        search.refresh(form.instance)


@admin.register(Collection)
class CollectionAdmin(admin.ModelAdmin):
    """Staff may feature what a person shares; everything else in it is that person's."""

    list_display = ("name", "public_id", "user", "is_public", "featured", "created_at")
    list_filter = ("is_public",)
    list_editable = ("featured",)
    search_fields = ("public_id", "name", "user__username")
    list_select_related = ("user",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(is_public=True)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in Collection._meta.fields if field.name != "featured"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ListingRevision)
class ListingRevisionAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "listing", "state", "created_by", "created_at")
    list_filter = ("state", "created_at")
    search_fields = ("public_id", "listing__slug", "listing__publisher__slug", "texts__name")
    list_select_related = ("listing__publisher", "created_by")
    inlines = (TextInline,)


@admin.register(Version)
class VersionAdmin(AppendOnlyAdmin):
    list_display = ("full_name", "public_id", "kind", "state", "base", "created_by", "created_at", "released_at")
    list_filter = ("state", "kind", "created_at")
    search_fields = ("public_id", "number", "digest", "made_by", "listing__slug", "listing__publisher__slug", "artifact__digest")
    list_select_related = ("listing__publisher", "base__listing__publisher", "created_by")
    inlines = (AncestryInline, MeasurementInline)


@admin.register(Artifact)
class ArtifactAdmin(AppendOnlyAdmin):
    list_display = ("digest", "public_id", "size_bytes", "created_at")
    list_filter = ("created_at",)
    search_fields = ("public_id", "digest", "revision", "versions__listing__slug")


@admin.register(Measurement)
class MeasurementAdmin(AppendOnlyAdmin):
    list_display = ("version", "name", "value", "low", "high", "base_value", "unit", "created_at")
    list_filter = ("name", "created_at")
    search_fields = ("version__public_id", "version__listing__slug", "made_by")
    list_select_related = ("version__listing__publisher",)
