"""The acts of publishing in one place: a listing and its texts, its versions, and what moderation does with them."""

from store.catalog.listings import create_listing, describe, make_current, set_permissions, set_prices, set_visibility
from store.catalog.releases import refuse, release, restore, seal, suspend
from store.catalog.retiring import bring_back, deprecate, recommend_again, yank
from store.catalog.revisions import edit_texts, make_live, set_icon
from store.catalog.versions import create_adapter_version, create_prompt_version, create_weights_version, delete_draft, edit_version

__all__ = [
    "bring_back",
    "create_adapter_version",
    "create_listing",
    "create_prompt_version",
    "create_weights_version",
    "delete_draft",
    "deprecate",
    "describe",
    "edit_texts",
    "edit_version",
    "make_current",
    "make_live",
    "recommend_again",
    "refuse",
    "release",
    "restore",
    "seal",
    "set_icon",
    "set_permissions",
    "set_prices",
    "set_visibility",
    "suspend",
    "yank",
]
