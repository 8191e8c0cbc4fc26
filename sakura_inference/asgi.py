"""ASGI entry point: ``uvicorn sakura_inference.asgi:application``."""

from django.core.asgi import get_asgi_application

from sakura_inference.start import start
from settings.environment import choose_settings
from tryon.body_limit import BodyLimit
from tryon.lifespan import Lifespan

choose_settings()
application = Lifespan(BodyLimit(get_asgi_application()))
start()
