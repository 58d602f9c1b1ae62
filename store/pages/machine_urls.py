from django.urls import path

from store.pages import crawlers, health, icons, installing

app_name = "machine"
urlpatterns = [
    path("icons/<str:digest>.webp", icons.icon, name="icon"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("robots.txt", crawlers.robots, name="robots"),
    path("sw.js", installing.service_worker, name="service_worker"),
    path("sitemap.xml", crawlers.sitemap, name="sitemap"),
    path("sitemaps/<slug:part>.xml", crawlers.sitemap_part, name="sitemap_part"),
]
