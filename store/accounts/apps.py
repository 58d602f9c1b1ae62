from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "store.accounts"
    label = "accounts"
