from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "store.jobs"
    label = "jobs"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.billing import ledger
        from store.billing.models import Transaction
        from store.catalog import collecting
        from store.jobs import dispatch, evaluations, finetunes, folders, outcomes, personal, referring
        from store.jobs.models import Job

        outcomes.on_end(Job.Kind.VALIDATION, finetunes.validated)
        for kind in finetunes.KINDS:
            outcomes.on_end(kind, finetunes.ended)
        outcomes.on_end(Job.Kind.EVALUATION, evaluations.ended)
        outcomes.on_end(Job.Kind.IMPORT, folders.ended)
        collecting.ask(referring.digests)
        dispatch.before_going_on(finetunes.goes_on)
        dispatch.before_going_on(evaluations.goes_on)
        ledger.keep_while(Transaction.Kind.JOB, finetunes.under_way)
        personal_data.declare(*personal.HOLDINGS)
        personal_data.waits_for(personal.is_under_way)
