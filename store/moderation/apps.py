from django.apps import AppConfig


class ModerationConfig(AppConfig):
    name = "store.moderation"
    label = "moderation"
