from django.urls import path

from store.pages import health

app_name = "machine"
urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("robots.txt", health.robots, name="robots"),
]
