"""All addresses. Pages live under their language; the APIs and machine endpoints do not."""

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from store.playground.views import embedding

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("store.pages.machine_urls")),
    path("embed.js", embedding.script, name="embed_script"),
    path("v1/", include("store.batches.api_urls")),
    path("v1/", include("store.api.openai.urls")),
    path("api/", include("store.api.urls")),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
]
urlpatterns += i18n_patterns(
    path("account/", include("allauth.urls")),
    path("account/", include("store.accounts.urls")),
    path("inbox/", include("store.notifications.urls")),
    path("wallet/", include("store.billing.urls")),
    path("studio/", include("store.jobs.urls")),
    path("batches/", include("store.batches.urls")),
    path("ratings/", include("store.ratings.urls")),
    path("review/", include("store.moderation.urls")),
    path("chat/", include("store.playground.urls")),
    path("", include("store.pages.urls")),
)
handler400 = "store.pages.errors.bad_request"
handler403 = "store.pages.errors.permission_denied"
handler404 = "store.pages.errors.page_not_found"
handler500 = "store.pages.errors.server_error"
