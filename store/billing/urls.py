from django.urls import path

from store.billing import views

app_name = "billing"
urlpatterns = [
    path("", views.wallet, name="wallet"),
    path("receipts/<str:public_id>/", views.receipt, name="receipt"),
    path("access/<str:public_id>/", views.buy_access, name="access"),
    path("access/<str:public_id>/renewal/", views.set_renewal, name="renewal"),
    path("access/<str:public_id>/refund/", views.refund, name="refund"),
    path("earnings/<slug:slug>/", views.earnings, name="earnings"),
]
