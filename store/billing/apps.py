from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "store.billing"
    label = "billing"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.billing import (
            checks,  # noqa: F401  (registers itself)
            personal,
        )

        personal_data.declare(*personal.HOLDINGS)
        personal_data.before_erasure(personal.renew_nothing)
