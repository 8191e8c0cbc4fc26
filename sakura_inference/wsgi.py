"""WSGI entry point, for hosts that have no ASGI server; each request then occupies a worker while it waits."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings.development")

application = get_wsgi_application()
