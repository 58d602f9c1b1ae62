from django.urls import path

from store.ratings import views

app_name = "ratings"
urlpatterns = [
    path("flags/", views.flags, name="flags"),
    path("flags/<str:public_id>/settle/", views.settle_flag, name="settle_flag"),
    path("of/<str:public_id>/", views.all_ratings, name="all"),
    path("of/<str:public_id>/rate/", views.rate, name="rate"),
    path("<str:public_id>/withdraw/", views.withdraw, name="withdraw"),
    path("<str:public_id>/reply/", views.reply, name="reply"),
    path("<str:public_id>/helpful/", views.helpful, name="helpful"),
    path("<str:public_id>/flag/", views.flag, name="flag"),
]
