from django.urls import path

from store.accounts import privacy, views

app_name = "accounts"
urlpatterns = [
    path("", views.settings, name="settings"),
    path("security/", views.security, name="security"),
    path("privacy/", privacy.show, name="privacy"),
    path("privacy/export/", privacy.export, name="export"),
    path("privacy/delete/", privacy.delete, name="delete"),
    path("privacy/keep/", privacy.keep, name="keep"),
    path("keys/", views.api_keys, name="keys"),
    path("keys/<str:key>/revoke/", views.revoke_key, name="revoke_key"),
    path("publishers/", views.my_publishers, name="publishers"),
    path("publishers/<str:slug>/members/", views.members, name="members"),
    path("publishers/<str:slug>/domain/", views.domain, name="domain"),
    path("publishers/<str:slug>/invitations/", views.invite, name="invite"),
    path("publishers/<str:slug>/invitations/<str:invitation>/revoke/", views.revoke_invitation, name="revoke_invitation"),
    path("invitations/<str:token>/", views.invitation, name="invitation"),
    path("publishers/<str:slug>/members/<str:member>/remove/", views.remove_member, name="remove_member"),
]
