from django.urls import path, re_path
from django.views.generic import RedirectView

from store.playground.views import acts, arena, consent, embedding, events, pages, shared

app_name = "playground"
urlpatterns = [
    path("", pages.chat, name="chat"),
    path("compare/", RedirectView.as_view(pattern_name="pages:compare", query_string=True, permanent=True), name="compare"),  # where it was
    path("feedback/", consent.consent, name="consent"),
    path("arena/", arena.arena, name="arena"),
    path("arena/board/", arena.board, name="arena_board"),
    path("arena/start/", arena.start, name="start_battle"),
    path("arena/<str:public_id>/", arena.battle, name="battle"),
    path("arena/<str:public_id>/vote/", arena.vote, name="vote"),
    path("shared/<str:public_id>/", shared.shared, name="shared"),
    path("new/", pages.new, name="new"),
    path("csrf/", acts.csrf, name="csrf"),
    path("confirm/", pages.confirm, name="confirm"),
    path("start/", acts.start, name="start"),
    path("try/<str:publisher>/<str:slug>/", acts.try_it, name="try"),
    path("requests/<str:public_id>/events", events.events, name="events"),
    path("requests/<str:public_id>/stop", acts.stop, name="stop"),
    path("requests/<str:public_id>/keep", acts.keep, name="keep"),
    path("messages/<str:public_id>/regenerate", acts.regenerate, name="regenerate"),
    path("messages/<str:public_id>/judge", acts.judge, name="judge"),
    path("messages/<str:public_id>/edit", acts.edit, name="edit"),
    path("embed/answers/<str:ticket>/", events.events_of_embed, name="embed_events"),
    path("embed/<str:public_id>/", embedding.page, name="embed"),
    path("embed/<str:public_id>/ask/", embedding.ask, name="embed_ask"),
    path("<str:public_id>/", pages.conversation, name="conversation"),
    path("<str:public_id>/ask", acts.ask, name="ask"),
    path("<str:public_id>/rename", acts.rename, name="rename"),
    path("<str:public_id>/share", shared.share, name="share"),
    path("<str:public_id>/unshare", shared.unshare, name="unshare"),
    path("<str:public_id>/delete", acts.delete, name="delete"),
    re_path(r"^(?P<public_id>\w+)/export\.(?P<form>md|json)$", pages.export, name="export"),
]
