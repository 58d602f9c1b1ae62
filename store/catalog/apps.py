from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "store.catalog"
    label = "catalog"
