from django.urls import path

from store.batches.api import Batches, CancelBatch, OneBatch

app_name = "v1_batches"
urlpatterns = [
    path("batches", Batches.as_view(), name="batches"),
    path("batches/<str:batch>", OneBatch.as_view(), name="batch"),
    path("batches/<str:batch>/cancel", CancelBatch.as_view(), name="cancel"),
]
