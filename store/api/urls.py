from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import AllowAny

from store.api.errors import unknown_address
from store.api.reference import reference
from store.api.views import Arena, Listings, OneListing

app_name = "api"
urlpatterns = [
    path("listings", Listings.as_view(), name="listings"),
    path("listings/<str:publisher>/<str:slug>", OneListing.as_view(), name="listing"),
    path("arena", Arena.as_view(), name="arena"),
    path("schema/", SpectacularAPIView.as_view(permission_classes=[AllowAny], authentication_classes=[]), name="schema"),
    path("docs/", reference, name="docs"),
    re_path(r"^(?P<rest>.*)$", unknown_address, name="unknown"),
]
