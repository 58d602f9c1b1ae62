from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "store.accounts"
    label = "accounts"

    def ready(self) -> None:
        from store.accounts import personal, personal_data

        personal_data.declare(*personal.HOLDINGS)
