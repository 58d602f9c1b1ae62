from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "store.batches"
    label = "batches"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.batches import personal, referring, shards
        from store.catalog import collecting
        from store.jobs import claims, outcomes
        from store.jobs.models import Job

        collecting.ask(referring.digests)
        claims.on_segment(Job.Kind.BATCH, shards.recorded)
        outcomes.on_end(Job.Kind.BATCH, shards.ended)
        personal_data.declare(*personal.HOLDINGS)
        personal_data.waits_for(personal.is_under_way)
        personal_data.before_erasure(personal.forget)
