from django.apps import AppConfig


class PlaygroundConfig(AppConfig):
    name = "store.playground"
    label = "playground"
