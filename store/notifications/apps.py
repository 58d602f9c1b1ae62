from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "store.notifications"
    label = "notifications"

    def ready(self) -> None:
        from store.accounts import domains, personal_data
        from store.notifications import badges, personal

        domains.on_change(badges.tell)
        personal_data.declare(*personal.HOLDINGS)
