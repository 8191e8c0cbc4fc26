"""Types for argparse, built on Django's form fields, which know what a column takes and say it in words."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model


def text_for(model: type[Model], field: str, *, required: bool = False) -> Callable[[str], str]:
    """Text that fits the model's ``field``: not too long, no NUL, and not blank if it is ``required``."""
    max_length: int | None = getattr(model._meta.get_field(field), "max_length", None)
    return _cleaned_by(forms.CharField(max_length=max_length, required=required))


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A whole number in these bounds."""
    return _cleaned_by(forms.IntegerField(min_value=least, max_value=most))


def _cleaned_by(field: forms.Field) -> Callable[[str], Any]:
    def clean(text: str) -> Any:
        try:
            text.encode()  # bytes that are no text come from the shell as surrogates
            return field.clean(text)
        except UnicodeEncodeError:
            raise ArgumentTypeError("This is no valid text.") from None
        except ValidationError as error:
            raise ArgumentTypeError(" ".join(error.messages)) from None

    return clean


UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age(text: str) -> timedelta:
    """A time like ``30d``: a whole number of minutes, hours, days or weeks."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text, re.ASCII)
    if found is None:
        raise ArgumentTypeError(
            f"{text!a} is no age. Give a whole number, 1 to 99999, and a unit, as in 90m (minutes), 12h, 30d or 8w."
        )
    return timedelta(**{UNITS[found[2]]: int(found[1])})
