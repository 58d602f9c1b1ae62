from django.urls import path, re_path

from store.api.errors import unknown_address
from store.api.openai.chat import chat_completions
from store.api.openai.embeddings import embeddings
from store.api.openai.files import File, Files, file_content
from store.api.openai.models import Model, Models

app_name = "openai"
urlpatterns = [
    path("models", Models.as_view(), name="models"),
    path("models/<path:model>", Model.as_view(), name="model"),
    path("files", Files.as_view(), name="files"),
    path("files/<str:file>", File.as_view(), name="file"),
    path("files/<str:file>/content", file_content, name="file_content"),
    path("chat/completions", chat_completions, name="chat_completions"),
    path("embeddings", embeddings, name="embeddings"),
    re_path(r"^(?P<rest>.*)$", unknown_address, name="unknown"),
]
