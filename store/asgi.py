"""The ASGI application: Django behind a wrapper that caps bodies before Django spools them."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "store.settings")

from django.core.asgi import get_asgi_application

from store.bodies import BodyCap

application = BodyCap(get_asgi_application())
