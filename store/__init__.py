"""The Django project: a store for GPT models, one app per business domain."""

from store.celery import app as celery_app

__all__ = ["celery_app"]
