from django.urls import path

from store.batches import views

app_name = "batches"
urlpatterns = [
    path("", views.show_batches, name="list"),
    path("new/", views.new, name="new"),
    path("<str:public_id>/", views.show_batch, name="batch"),
    path("<str:public_id>/cancel/", views.cancel, name="cancel"),
    path("<str:public_id>/files/<str:which>/", views.download, name="download"),
]
