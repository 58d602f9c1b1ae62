from django.apps import AppConfig


class RatingsConfig(AppConfig):
    name = "store.ratings"
    label = "ratings"
