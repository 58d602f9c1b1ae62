from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "store.billing"
    label = "billing"
