from django.urls import path

from store.pages import downloads, following, listing_page, measured_page, operations, saved_searches, suggestions, version_history, views
from store.pages.studio import changing, making, overview

app_name = "pages"
urlpatterns = [
    path("", views.home, name="home"),
    path("explore/", views.explore, name="explore"),
    path("explore/suggest/", suggestions.suggest, name="suggest"),
    path("explore/saved/", saved_searches.save_search, name="save_search"),
    path("explore/saved/<str:public_id>/forget/", saved_searches.forget_search, name="forget_search"),
    path("gpts/<str:publisher>/<str:slug>/", listing_page.listing, name="listing"),
    path("following/", following.following, name="following"),
    path("following/<str:public_id>/stop/", following.stop, name="stop_following"),
    path("gpts/<str:publisher>/<str:slug>/follow/", following.follow_listing, name="follow_listing"),
    path("publishers/<str:slug>/follow/", following.follow_publisher, name="follow_publisher"),
    path("gpts/<str:publisher>/<str:slug>/versions/", version_history.versions, name="versions"),
    path("gpts/<str:publisher>/<str:slug>/<str:number>/measured/", measured_page.measured, name="measured"),
    path("gpts/<str:publisher>/<str:slug>/<str:number>/files/<path:path>", downloads.download, name="file"),
    path("publishers/<str:slug>/", views.publisher, name="publisher"),
    path("developers/", views.developers, name="developers"),
    path("about/", views.about, name="about"),
    path("review-policy/", views.policy, name="policy"),
    path("operations/", operations.show, name="operations"),
    path("operations/jobs/<str:public_id>/cancel/", operations.cancel, name="operations_cancel"),
    path("operations/jobs/<str:public_id>/retry/", operations.retry, name="operations_retry"),
    path("studio/", overview.overview, name="studio"),
    path("studio/new-publisher/", making.new_publisher, name="studio_new_publisher"),
    path("studio/publishers/<str:slug>/", overview.publisher, name="studio_publisher"),
    path("studio/publishers/<str:slug>/new/", making.new_gpt, name="studio_new_gpt"),
    path("studio/gpts/<str:publisher>/<str:slug>/", overview.listing, name="studio_listing"),
    path("studio/gpts/<str:publisher>/<str:slug>/texts/", making.edit_texts, name="studio_texts"),
    path("studio/gpts/<str:publisher>/<str:slug>/prices/", changing.set_prices, name="studio_prices"),
    path("studio/gpts/<str:publisher>/<str:slug>/permissions/", changing.set_permissions, name="studio_permissions"),
    path("studio/gpts/<str:publisher>/<str:slug>/visibility/", changing.set_visibility, name="studio_visibility"),
    path("studio/gpts/<str:publisher>/<str:slug>/submit/", changing.submit, name="studio_submit"),
    path("studio/gpts/<str:publisher>/<str:slug>/withdraw/", changing.withdraw, name="studio_withdraw"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/", making.new_version, name="studio_new_version"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/", making.edit_version, name="studio_version"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/current/", changing.make_current, name="studio_make_current"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/delete/", changing.delete_draft, name="studio_delete_draft"),
]
