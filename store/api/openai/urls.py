from django.urls import URLPattern

app_name = "openai"
urlpatterns: list[URLPattern] = []
