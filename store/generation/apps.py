from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "store.generation"
    label = "generation"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.billing import access
        from store.generation import personal, settlement

        personal_data.declare(*personal.HOLDINGS)
        personal_data.waits_for(personal.is_under_way)
        access.keep_while(settlement.is_paid_by)
