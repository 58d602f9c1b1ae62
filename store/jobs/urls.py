from django.urls import path

from store.jobs import evaluation_views, upload_views, views

app_name = "jobs"
urlpatterns = [
    path("publishers/<str:slug>/finetunes/", views.show_finetunes, name="finetunes"),
    path("publishers/<str:slug>/finetunes/new/", views.choose_data, name="new"),
    path("publishers/<str:slug>/pretraining/new/<str:file>/", views.choose_size, name="pretraining"),
    path("publishers/<str:slug>/finetunes/new/<str:base>/<str:file>/", views.choose_settings, name="settings"),
    path("publishers/<str:slug>/evaluations/", evaluation_views.show_evaluations, name="evaluations"),
    path("publishers/<str:slug>/evaluations/new/<str:version>/", evaluation_views.choose_suites, name="evaluate"),
    path("publishers/<str:slug>/files/", views.show_files, name="files"),
    path("uploads/", upload_views.create, name="uploads"),
    path("uploads/<str:public_id>/", upload_views.one_upload, name="upload"),
    path("uploads/<str:public_id>/remove/", views.remove_upload, name="remove_upload"),
    path("jobs/<str:public_id>/", views.show_job, name="job"),
    path("jobs/<str:public_id>/events/", views.events, name="events"),
    path("jobs/<str:public_id>/pause/", views.pause, name="pause"),
    path("jobs/<str:public_id>/resume/", views.resume, name="resume"),
    path("jobs/<str:public_id>/cancel/", views.cancel, name="cancel"),
    path("jobs/<str:public_id>/retry/", views.retry, name="retry"),
    path("jobs/<str:public_id>/version/", views.make_version, name="make_version"),
]
