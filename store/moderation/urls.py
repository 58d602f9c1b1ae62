from django.urls import path

from store.moderation import views

app_name = "moderation"
urlpatterns = [
    path("", views.show_queue, name="queue"),
    path("submissions/<str:public_id>/", views.show_submission, name="submission"),
    path("submissions/<str:public_id>/claim/", views.claim, name="claim"),
    path("submissions/<str:public_id>/release/", views.release, name="release"),
    path("submissions/<str:public_id>/decide/", views.decide, name="decide"),
    path("submissions/<str:public_id>/withdraw/", views.withdraw, name="withdraw"),
    path("submissions/<str:public_id>/checks/<slug:name>/again/", views.run_check_again, name="run_check_again"),
    path("gpts/<str:public_id>/", views.show_listing, name="listing"),
    path("suspend/<str:public_id>/", views.suspend, name="suspend"),
    path("restore/<str:public_id>/", views.restore, name="restore"),
]
