from django.urls import path

from store.pages import listing_page, studio, views

app_name = "pages"
urlpatterns = [
    path("", views.home, name="home"),
    path("explore/", views.explore, name="explore"),
    path("gpts/<str:publisher>/<str:slug>/", listing_page.listing, name="listing"),
    path("publishers/<str:slug>/", views.publisher, name="publisher"),
    path("developers/", views.developers, name="developers"),
    path("about/", views.about, name="about"),
    path("review-policy/", views.policy, name="policy"),
    path("studio/", studio.overview, name="studio"),
    path("studio/new-publisher/", studio.new_publisher, name="studio_new_publisher"),
    path("studio/publishers/<str:slug>/", studio.publisher, name="studio_publisher"),
    path("studio/publishers/<str:slug>/new/", studio.new_gpt, name="studio_new_gpt"),
    path("studio/gpts/<str:publisher>/<str:slug>/", studio.listing, name="studio_listing"),
    path("studio/gpts/<str:publisher>/<str:slug>/texts/", studio.edit_texts, name="studio_texts"),
    path("studio/gpts/<str:publisher>/<str:slug>/prices/", studio.set_prices, name="studio_prices"),
    path("studio/gpts/<str:publisher>/<str:slug>/permissions/", studio.set_permissions, name="studio_permissions"),
    path("studio/gpts/<str:publisher>/<str:slug>/visibility/", studio.set_visibility, name="studio_visibility"),
    path("studio/gpts/<str:publisher>/<str:slug>/submit/", studio.submit, name="studio_submit"),
    path("studio/gpts/<str:publisher>/<str:slug>/withdraw/", studio.withdraw, name="studio_withdraw"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/", studio.new_version, name="studio_new_version"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/", studio.edit_version, name="studio_version"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/current/", studio.make_current, name="studio_make_current"),
    path("studio/gpts/<str:publisher>/<str:slug>/versions/<str:number>/delete/", studio.delete_draft, name="studio_delete_draft"),
]
