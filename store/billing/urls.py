from django.urls import path

from store.billing import views

app_name = "billing"
urlpatterns = [
    path("", views.wallet, name="wallet"),
    path("receipts/<str:public_id>/", views.receipt, name="receipt"),
    path("earnings/<slug:slug>/", views.earnings, name="earnings"),
]
