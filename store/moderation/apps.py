from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ModerationConfig(AppConfig):
    name = "store.moderation"
    label = "moderation"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.jobs import outcomes
        from store.jobs.models import Job
        from store.moderation import checks, personal, reviewers

        outcomes.on_end(Job.Kind.CHECK, checks.take_outcome)
        post_migrate.connect(reviewers.create_group, sender=self)
        personal_data.declare(*personal.HOLDINGS)
