from django.apps import AppConfig
from django.db.models.signals import post_migrate


class CatalogConfig(AppConfig):
    name = "store.catalog"
    label = "catalog"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.catalog import collecting, personal, referring
        from store.catalog.use_cases import create_missing

        collecting.ask(referring.digests)
        post_migrate.connect(create_missing, sender=self)
        personal_data.declare(*personal.HOLDINGS)
