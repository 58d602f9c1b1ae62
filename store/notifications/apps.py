from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "store.notifications"
    label = "notifications"
