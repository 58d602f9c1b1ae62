"""Staff's view of ratings; changes go through the acts, which keep the aggregates right."""

from __future__ import annotations

from django.contrib import admin

from store.accounts.admin import AppendOnlyAdmin
from store.ratings.models import Flag, HelpfulVote, PastRating, Rating, RatingSummary, Reply


@admin.register(Rating)
class RatingAdmin(AppendOnlyAdmin):
    list_display = (
        "public_id",
        "listing",
        "version",
        "stars",
        "user",
        "requests_used",
        "tokens_used",
        "created_at",
        "hidden_at",
        "withdrawn_at",
    )
    list_filter = ("stars", "language", "created_at", ("hidden_at", admin.EmptyFieldListFilter))
    search_fields = ("public_id", "user__username", "listing__slug", "listing__publisher__slug", "text")
    list_select_related = ("listing__publisher", "version__listing__publisher", "user")


@admin.register(PastRating)
class PastRatingAdmin(AppendOnlyAdmin):
    list_display = ("rating", "version", "stars", "written_at", "replaced_at")
    search_fields = ("rating__public_id", "rating__user__username", "text")
    list_select_related = ("rating", "version__listing__publisher")


@admin.register(HelpfulVote)
class HelpfulVoteAdmin(AppendOnlyAdmin):
    list_display = ("rating", "user", "created_at")
    search_fields = ("rating__public_id", "user__username")
    list_select_related = ("rating", "user")


@admin.register(Reply)
class ReplyAdmin(AppendOnlyAdmin):
    list_display = ("rating", "author", "created_at")
    search_fields = ("rating__public_id", "author__username", "text")
    list_select_related = ("rating", "author")


@admin.register(Flag)
class FlagAdmin(AppendOnlyAdmin):
    list_display = ("public_id", "rating", "reason", "state", "user", "created_at")
    list_filter = ("state", "reason", "created_at")
    search_fields = ("public_id", "rating__public_id", "user__username")
    list_select_related = ("rating", "user")


@admin.register(RatingSummary)
class RatingSummaryAdmin(AppendOnlyAdmin):
    list_display = ("listing", "count", "total", "bayesian")
    search_fields = ("listing__slug", "listing__publisher__slug")
    list_select_related = ("listing__publisher",)
