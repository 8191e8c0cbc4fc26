"""WSGI entry point, for hosts that have no ASGI server; each request then occupies a worker while it waits."""

from django.core.wsgi import get_wsgi_application

from sakura_inference.start import start
from settings.environment import choose_settings

choose_settings()
application = get_wsgi_application()
start()
