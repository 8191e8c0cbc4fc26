"""A host's proxy of the user model, which sends signals of its own."""

from __future__ import annotations

from django.contrib.auth.models import User


class Shopper(User):
    class Meta:
        proxy = True
        app_label = "auth"
