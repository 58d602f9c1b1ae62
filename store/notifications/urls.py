from django.urls import path

from store.notifications import views

app_name = "notifications"
urlpatterns = [
    path("", views.inbox, name="inbox"),
    path("preferences/", views.edit_preferences, name="preferences"),
    path("unsubscribe/<str:token>/", views.unsubscribe, name="unsubscribe"),
    path("read/", views.mark_all_read, name="mark_all_read"),
    path("<str:public_id>/read/", views.mark_read, name="mark_read"),
    path("<str:public_id>/open/", views.open_message, name="open"),
]
