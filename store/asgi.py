"""The ASGI application: Django behind a wrapper that caps bodies before Django spools them, and one that keeps pages for visitors."""

from __future__ import annotations

import os
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "store.settings")

from django.core.asgi import get_asgi_application

from store.bodies import App, BodyCap
from store.kept_pages import KeptPages

django = cast(App, get_asgi_application())  # from here on models can be imported

from store.catalog import views  # noqa: E402

application = KeptPages(BodyCap(django), looked=views.count_kept)
