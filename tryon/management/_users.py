"""Users, as they are named on the command line."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from ..conf import conf
from ._failures import database_needed


def find_user(name: str, *, active: bool = False) -> User:
    """The user that clients call ``name``, who may have to be ``active``. Raise ``CommandError``."""
    model = get_user_model()
    field = conf.USER_ID_FIELD or model.USERNAME_FIELD
    if not name.strip():
        raise CommandError(f"The user is empty. Give a {field}.")
    try:
        with database_needed():
            user: User = model._default_manager.get(**{field: name})
    except model.MultipleObjectsReturned:
        raise CommandError(
            f'There are several users with {field} {name!r}. TRYON["USER_ID_FIELD"] should name a field that '
            "no two users share."
        ) from None
    except (model.DoesNotExist, ValueError, ValidationError):
        raise CommandError(
            f"There is no user with {field} {name!r}. Create one: manage.py createsuperuser, or in the admin."
        ) from None
    if active and not user.is_active:
        raise CommandError(f"The user {name!r} is not active. Set is_active, in the admin or your own way.")
    return user
