from django.apps import AppConfig


class RatingsConfig(AppConfig):
    name = "store.ratings"
    label = "ratings"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.ratings import personal

        personal_data.declare(*personal.HOLDINGS)
        personal_data.before_erasure(personal.take_back)
