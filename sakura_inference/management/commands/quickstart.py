from __future__ import annotations

import json
import secrets
import socket
import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from tryon.credits import get_credits
from tryon.lifespan import Lifespan
from tryon.management import _models
from tryon.management._failures import database_needed, interruptible
from tryon.management._tryons import demo_photo, locations, make_tryon
from tryon.models import ApiKey
from tryon.runs import Order

DEMO_USER: Final = "demo"
DEMO_CREDITS: Final = 25
KEY_NAME: Final = "quickstart"
KEY_DAYS: Final = 30


class Command(BaseCommand):
    help = "From a fresh clone to a picture: models, database, a demo user, a first try-on, then the server."
    requires_system_checks = []  # run below, once the models are there

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="Stop after the picture.")

    def handle(self, *, no_serve: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("quickstart makes a demo user: it is for development. Set DEBUG, or use migrate.")
        if not no_serve:
            self.demand_port()
        with interruptible("Stopped. Run it again to go on."):
            self.prepare()
            if not no_serve:
                self.serve()

    def prepare(self) -> None:
        """What may fail comes first, so that a failure leaves little behind."""
        self.step("Models of the offline provider")
        _models.fetch(sys.stderr)
        self.check(tags=["tryon"])  # what is wrong in .env is told now, not by the first request
        self.step("Database")
        with database_needed():
            call_command("migrate", verbosity=0)
        self.step("Demo user")
        user = self.demo_user()
        self.step("First try-on")
        picture = self.first_tryon(user)
        self.stdout.write(self.style.SUCCESS(f"\nThe picture: {picture}\n"))
        with transaction.atomic():  # a password or key that was not printed in the end must not count
            self.explain(self.new_key(user), self.first_password(user))
            self.stdout.flush()

    def step(self, name: str) -> None:
        self.stderr.write(f"… {name}", style_func=str)  # it would be red on a terminal

    def demand_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", settings.PORT))
            except OSError as error:
                raise CommandError(
                    f"Port {settings.PORT} cannot be used: {error.strerror}. Stop what holds it, or choose another: "
                    f"PORT={settings.PORT + 1} python manage.py quickstart"
                ) from None

    def demo_user(self) -> User:
        """The demo user, with credits; a new one has no password yet."""
        model = get_user_model()
        user = model._default_manager.filter(**{model.USERNAME_FIELD: DEMO_USER}).first()
        if user is None:
            user = model._default_manager.create_superuser(DEMO_USER)
        credits_backend = get_credits()
        missing = DEMO_CREDITS - credits_backend.balance(user)
        if missing > 0:
            credits_backend.grant(user, missing, reason="quickstart")
        return user

    def first_tryon(self, user: User) -> str:
        """Where the picture is."""
        order = Order(
            user=user,
            person=demo_photo("person.jpg").read_bytes(),
            garment=demo_photo("garment.jpg").read_bytes(),
            catalog_id="demo",
            provider="local",
        )
        return make_tryon(order, lambda tryon: locations(tryon)[0], progress=sys.stderr)

    def new_key(self, user: User) -> str:
        """A key in place of those that expired. Others, from earlier runs, go on working."""
        now = timezone.now()
        ApiKey.objects.filter(user=user, name=KEY_NAME, expires_at__lte=now).delete()
        _, key = ApiKey.create_key(user, name=KEY_NAME, expires_at=now + timedelta(days=KEY_DAYS))
        return key

    def first_password(self, user: User) -> str:
        """A password, unless the user has one or could log in nowhere."""
        if user.has_usable_password() or not settings.ADMIN_ENABLED:
            return ""
        password = secrets.token_urlsafe(9)
        user.set_password(password)
        user.save(update_fields=["password"])
        return password

    def explain(self, key: str, password: str) -> None:
        base = f"http://localhost:{settings.PORT}"
        body = {
            "user_id": DEMO_USER,
            "api_key": key,
            "catalog_id": "demo",
            "user_image_url": f"{base}/samples/person.jpg",
            "catalog_image_url": f"{base}/samples/garment.jpg",
        }
        docs = f"  {base}/docs                  the API\n"
        login = password or "as printed the first time; manage.py changepassword demo sets a new one"
        admin = f"  {base}/admin/                runs and credits (user {DEMO_USER}, password {login})\n"
        self.stdout.write(
            f"The key of user {DEMO_USER!r}, shown only now, good for {KEY_DAYS} days: {key}\n\n"
            f"While the server runs, this makes another picture:\n\n"
            f'curl -X POST "{base}/api/v1/create-image" -H "Content-Type: application/json" '
            f"-d '{json.dumps(body)}'\n\n"
            f"To open in a browser:\n"
            f"  {base}/api/v1/create-image   a form\n"
            f"{docs if settings.DOCS_ENABLED else ''}"
            f"{admin if settings.ADMIN_ENABLED else ''}"
        )

    def serve(self) -> None:
        import uvicorn
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
        from django.core.asgi import get_asgi_application

        self.stdout.write(f"Serving on http://localhost:{settings.PORT}, Ctrl-C stops it.")
        application = Lifespan(ASGIStaticFilesHandler(get_asgi_application()))
        uvicorn.run(application, host="127.0.0.1", port=settings.PORT, log_level="warning")
