from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "store.jobs"
    label = "jobs"
