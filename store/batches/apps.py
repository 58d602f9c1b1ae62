from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "store.batches"
    label = "batches"

    def ready(self) -> None:
        from store.batches import referring, shards
        from store.catalog import collecting
        from store.jobs import claims, outcomes
        from store.jobs.models import Job

        collecting.ask(referring.digests)
        claims.on_segment(Job.Kind.BATCH, shards.recorded)
        outcomes.on_end(Job.Kind.BATCH, shards.ended)
