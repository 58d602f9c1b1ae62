from django.urls import path, re_path

from store.api.errors import unknown_address
from store.api.openai.chat import chat_completions
from store.api.openai.models import Model, Models

app_name = "openai"
urlpatterns = [
    path("models", Models.as_view(), name="models"),
    path("models/<path:model>", Model.as_view(), name="model"),
    path("chat/completions", chat_completions, name="chat_completions"),
    re_path(r"^(?P<rest>.*)$", unknown_address, name="unknown"),
]
