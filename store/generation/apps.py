from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "store.generation"
    label = "generation"
