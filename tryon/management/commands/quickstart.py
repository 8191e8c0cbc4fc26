from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from ...conf import conf
from ...credits import get_credits
from ...exceptions import TryOnError
from ...models import ApiKey, TryOn
from ...pipeline import Order
from ...samples import sample
from .. import _models
from .._tryons import make_tryon

DEMO_USER: Final = "demo"
DEMO_CREDITS: Final = 25


class Command(BaseCommand):
    help = "From a fresh clone to a picture: database, models, a demo user, a first try-on, then the server."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="Stop after the picture.")

    def handle(self, *, no_serve: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("quickstart makes a demo user: it is for development. Set DEBUG, or use migrate.")
        if not no_serve:
            self.demand_port()
        self.step("Database")
        call_command("migrate", verbosity=0)
        self.step("Models of the offline provider")
        _models.fetch(sys.stderr)
        self.step("Demo user")
        user, password = self.demo_user()
        _, key = ApiKey.create_key(user, name="quickstart")
        self.step("First try-on")
        tryon = self.first_tryon(user)
        self.stdout.write(self.style.SUCCESS(f"\nThe picture: {tryon.image.path}\n"))
        self.explain(key, password)
        if not no_serve:
            self.serve()

    def step(self, name: str) -> None:
        self.stderr.write(f"… {name}")

    def demand_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", conf.PORT))
            except OSError as error:
                raise CommandError(
                    f"Port {conf.PORT} cannot be used: {error.strerror}. Stop what holds it, or choose another: "
                    f"PORT={conf.PORT + 1} python manage.py quickstart"
                ) from None

    def demo_user(self) -> tuple[User, str]:
        """The demo user, with credits; and the password if the user is new."""
        model = get_user_model()
        password = ""
        user = model._default_manager.filter(**{model.USERNAME_FIELD: DEMO_USER}).first()
        if user is None:
            password = secrets.token_urlsafe(9)
            user = model._default_manager.create_superuser(DEMO_USER, password=password)
        credits_backend = get_credits()
        missing = DEMO_CREDITS - credits_backend.balance(user)
        if missing > 0:
            credits_backend.grant(user, missing, reason="quickstart")
        return user, password

    def first_tryon(self, user: User) -> TryOn:
        try:
            order = Order(
                user=user,
                person=sample("person.jpg").read_bytes(),
                garment=sample("garment.jpg").read_bytes(),
                catalog_id="demo",
                provider="local",
            )
            return asyncio.run(make_tryon(order, progress=sys.stderr))
        except TryOnError as error:
            raise CommandError(f"The first try-on failed: {error}") from error

    def explain(self, key: str, password: str) -> None:
        base = f"http://localhost:{conf.PORT}"
        body = {
            "user_id": DEMO_USER,
            "api_key": key,
            "catalog_id": "demo",
            "user_image_url": f"{base}/samples/person.jpg",
            "catalog_image_url": f"{base}/samples/garment.jpg",
        }
        login = password or "as printed the first time; manage.py changepassword demo sets a new one"
        self.stdout.write(
            f"The key of user {DEMO_USER!r}, shown only now: {key}\n\n"
            f"While the server runs, this makes another picture:\n\n"
            f'curl -X POST "{base}/api/v1/create-image" -H "Content-Type: application/json" '
            f"-d '{json.dumps(body)}'\n\n"
            f"To open in a browser:\n"
            f"  {base}/api/v1/create-image   a form\n"
            f"  {base}/docs                  the API\n"
            f"  {base}/admin/                runs and credits (user {DEMO_USER}, password {login})\n"
        )

    def serve(self) -> None:
        import uvicorn
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
        from django.core.asgi import get_asgi_application

        self.stdout.write(f"Serving on http://localhost:{conf.PORT}, Ctrl-C stops it.")
        application = ASGIStaticFilesHandler(get_asgi_application())
        uvicorn.run(application, host="127.0.0.1", port=conf.PORT, log_level="warning", lifespan="off")
