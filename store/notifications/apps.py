from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "store.notifications"
    label = "notifications"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.notifications import personal

        personal_data.declare(*personal.HOLDINGS)
