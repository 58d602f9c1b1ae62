from django.apps import AppConfig


class PagesConfig(AppConfig):
    name = "store.pages"
    label = "pages"

    def ready(self) -> None:
        from store.jobs import dispatch
        from store.pages.demo import finetune

        dispatch.open_to_all(finetune.holds_our_data)
