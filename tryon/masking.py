"""Keeps keys and photos out of logs: a filter for logging's handlers.

``"filters": {"mask": {"()": "tryon.masking.MaskSecrets"}}`` in LOGGING, and ``"filters": ["mask"]`` on each handler.
"""

from __future__ import annotations

import functools
import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from django.conf import settings
from django.core.signals import setting_changed
from django.db.models import Model, QuerySet
from django.dispatch import receiver

from providers.base import Secret

MASK: Final = "***"

SHORTEST: Final = 8
"""Characters of the shortest secret that is masked. "test" as a password would mask every other line."""

SECRET_NAME: Final = re.compile(r"key|token|secret|passw|signature|connection_string", re.IGNORECASE)
"""Names of options that hold a secret."""

NAMES: Final = {
    "key": "(?:api_?|access_?|account_?|secret_?)key",
    "token": "token",
    "secret": "secret",
    "password": "password",
    "signature": "signature",
}
"""Ends of the names of parameters and items that hold a secret, and of those the ones that do."""
_ANY_NAME: Final = f"(?:{'|'.join(NAMES.values())})"

_FORMS: Final = (
    # Ours.
    ("tryon_", r"tryon_[\w-]{43,}", f"tryon_{MASK}"),
    (
        "pictures",
        r"([0-9a-f]{32}\.(?:[0-9]+|video|photo[0-9]+)\.[0-9]+\.)[\w-]{20,}",
        rf"\1{MASK}",
    ),  # signed addresses
    # OpenAI's, Stability's and others'; Google's keys and tokens; Replicate's; fal's, which are id:secret.
    ("sk-", r"(?<![a-z0-9])sk-[\w-]{16,}", f"sk-{MASK}"),
    ("aiza", r"aiza[\w-]{30,}", f"AIza{MASK}"),
    ("ya29.", r"ya29\.[\w.-]{20,}", f"ya29.{MASK}"),
    ("r8_", r"(?<![a-z0-9])r8_[a-z0-9]{20,}", f"r8_{MASK}"),
    (":", r"(?<=-[0-9a-f]{12}):[0-9a-f]{32,}", f":{MASK}"),
    # JSON web tokens and private keys.
    ("eyj", r"(?<![\w-])eyj[\w-]{8,}\.[\w-]{8,}\.[\w-]*", MASK),
    ("private key", r"-----begin [a-z ]*private key-----[\s\S]*?(?:-----end [a-z ]*private key-----|\Z)", MASK),
    # Headers, also as a list of pairs or a dictionary shows them.
    ("bearer ", r"(bearer )[\w.~+/=-]{12,}", rf"\1{MASK}"),
    ("authorization", r"(authorization\\*['\"]?\s*[:=,]\s*b?\\*['\"]?(?:[a-z]+ )?)[^\s'\",}]{8,}", rf"\1{MASK}"),
    ("-key", r"(x-(?:goog-)?(?:api-)?key\\*['\"]?\s*[:=,]\s*b?\\*['\"]?)[^\s'\",}]{8,}", rf"\1{MASK}"),
    # Parameters of URLs and calls, and items of dictionaries.
    *((f"{end}=", rf"({name}=b?['\"]?)[^\s&'\"<>,)]+", rf"\1{MASK}") for end, name in NAMES.items()),
    *((f"{end}{q}:", rf"({name}{q}:\s*b?['\"])[^'\"]+", rf"\1{MASK}") for end, name in NAMES.items() for q in "'\""),
    # The same in JSON that is a text in JSON, and what repr() makes of it.
    *((rf"\{q}:", rf"({_ANY_NAME}\\+{q}:\s*b?\\*['\"])[^'\"]+", rf"\1{MASK}") for q in "'\""),
    *((f"{name}=", rf"([?&;]{name}=)[^\s&'\"<>]+", rf"\1{MASK}") for name in ("key", "sig")),
    ("://", r"(://[^\s/:@'\"]*:)[^\s/@'\"]+@", rf"\1{MASK}@"),
    # Photos, also as the text of bytes.
    ("data:", r"(data:[\w.+-]+/[\w.+-]+(?:;[\w.=+-]+)*,)(?:[\w+/=%-]|\\[nr]|\s(?=[\w+/=]{20}))+", rf"\1{MASK}"),
    (r"b'\x", r"b'\\x(?:ff\\xd8|89png)[^']*'?", f"b'{MASK}'"),
    ("b'riff", r"b'riff[^']*'?", f"b'{MASK}'"),
)
"""What is in every text with such a form, in lower case; the form; what is left of it."""

# Quick first: most texts have no hint, and most hints stand for something else.
_COMPILED: Final = tuple(
    (hint, re.compile(form), re.compile(form, re.IGNORECASE), replacement) for hint, form, replacement in _FORMS
)

_BASE64: Final = re.compile(
    r"(?<![\w+/-])(?:[\w+/-]{200,}={0,2}|(?:[A-Za-z0-9+/]{60,}(?:\\[rn]|\s)+){2,}[A-Za-z0-9+/]*={0,2})", re.ASCII
)
LONG: Final = 60
"""Characters of the shortest word that may be a line of base64."""

_PLAIN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes that every record has. The others are extras."""

SETTINGS: Final = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASES", "STORAGES", "EMAIL_HOST_PASSWORD", "TRYON")
"""In which secrets are looked for."""

_NUMBERS: Final = (int, float)

DEEPEST: Final = 8
"""Dictionaries and lists in each other that are looked into. What is deeper, or in itself, becomes its text."""


class MaskSecrets(logging.Filter):
    """Writes *** for what must not be read in a log, and lets every record through.

    Masked are the secrets of the settings (the database's, SECRET_KEY, options of providers and storages that have the
    name of a secret), whatever looks like one (keys of ours and of vendors, signatures and passwords in URLs), and
    photos as base64 or ``data:`` URIs; in the message, its arguments, extras, and the texts of exception and stack.

    A record in which nothing is masked stays as it is. In one where something is, the arguments are a part of the
    message and the exception is its text, so that no handler after this one shows what it hid.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            self._mask(record)
        except Exception:  # noqa: BLE001 - a line that is not written may be the one that matters
            record.msg, record.args = "A log line could not be masked, and is left out.", None
            record.exc_info = record.exc_text = record.stack_info = None
            for name in record.__dict__.keys() - _PLAIN:
                record.__dict__[name] = MASK
        return True

    def _mask(self, record: logging.LogRecord) -> None:
        secrets = known_secrets()
        extras = [name for name in record.__dict__ if name not in _PLAIN]
        if not _is_clean(record, extras, secrets):
            self._mask_message(record, secrets)
            for name in extras:
                record.__dict__[name] = _masked_item(name, record.__dict__[name], secrets)
        if record.exc_info or record.exc_text:
            text = record.exc_text or _as_text(record.exc_info)
            if (masked := mask(text, secrets)) is not text:
                record.exc_info, record.exc_text = None, masked
        if record.stack_info:
            record.stack_info = mask(record.stack_info, secrets)

    @staticmethod
    def _mask_message(record: logging.LogRecord, secrets: tuple[str, ...]) -> None:
        if not isinstance(record.msg, str) and isinstance(record.msg, Mapping | list | tuple):
            record.msg = _masked(record.msg, secrets)  # some formatters write its items
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - the handler tells of it, and shows the arguments
            message = f"{record.msg!s} {record.args!r}"
        if (masked := mask(message, secrets)) is not message:
            record.msg, record.args = masked, None
        elif record.args:
            record.args = _masked(record.args, secrets)


def _is_clean(record: logging.LogRecord, extras: list[str], secrets: tuple[str, ...]) -> bool:
    """Whether nothing is to be masked in message, arguments and extras: all of them looked through at once."""
    try:
        texts = [record.getMessage()]
    except Exception:  # noqa: BLE001 - see _mask_message()
        return False
    values = [record.__dict__[name] for name in extras]
    if isinstance(record.args, Mapping):
        values.append(record.args)
    elif record.args:
        values += record.args
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif value is not None and not isinstance(value, _NUMBERS):
            return False
    text = "\n".join(texts)
    return mask(text, secrets) is text and not any(map(_is_secret, extras))


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without ``secrets``, given in lower case, without what looks like one, and without photos.

    The very same object where there are none.
    """
    lower = text.lower()
    for secret in secrets:
        if secret in lower:
            text = re.sub(re.escape(secret), MASK, text, flags=re.IGNORECASE)
    for hint, quick, form, replacement in _COMPILED:
        if hint in lower and quick.search(lower):
            text = form.sub(replacement, text)
    if max(map(len, text.split()), default=0) >= LONG and _BASE64.search(text):
        text = _BASE64.sub(MASK, text)
    return text


@functools.cache
def _is_secret(name: str) -> bool:
    """Whether the name of an item says that it is a secret."""
    name = name.lower().replace("-", "_")
    return name in ("authorization", "x_key") or re.search(f"{_ANY_NAME}$", name) is not None


def _masked(value: Any, secrets: tuple[str, ...], depth: int = 0) -> Any:
    """``value`` with all texts in it masked; the very same object where nothing was."""
    if isinstance(value, str):
        return mask(value, secrets)
    if value is None or isinstance(value, _NUMBERS):
        return value
    if isinstance(value, bytes | bytearray | memoryview) and len(value) > LONG:  # a photo, or as long as one
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping) and depth < DEEPEST:
        items = {key: _masked_item(key, item, secrets, depth) for key, item in value.items()}
        return value if all(value[key] is item for key, item in items.items()) else items
    if isinstance(value, list | tuple | set | frozenset) and depth < DEEPEST:
        each = [_masked(item, secrets, depth + 1) for item in value]
        same = all(new is old for new, old in zip(each, value, strict=True))
        return value if same else tuple(each) if isinstance(value, tuple) else each
    if isinstance(value, QuerySet | Model):  # whose text may take a query
        return value
    text = repr(value) if isinstance(value, bytes | bytearray) else str(value)
    return value if (masked := mask(text, secrets)) is text else masked


def _masked_item(name: object, item: Any, secrets: tuple[str, ...], depth: int = 0) -> Any:
    """What has a name: as a secret by its name, too."""
    if isinstance(item, str) and isinstance(name, str) and len(item) >= SHORTEST and _is_secret(name):
        return MASK
    return _masked(item, secrets, depth + 1)


def _as_text(exc_info: Any) -> str:
    return "".join(traceback.format_exception(*cast("Any", exc_info)))


def known_secrets() -> tuple[str, ...]:
    """The secrets of the settings, in lower case; none while the settings are being read."""
    return _of_settings() if settings.configured else ()


@functools.cache
def _of_settings() -> tuple[str, ...]:
    texts = {text for name in SETTINGS for text in secrets_in(name, getattr(settings, name, None))}
    # The longest first: one may be a part of another.
    return tuple(sorted({form for text in texts for form in _written(text)}, key=len, reverse=True))


@receiver(setting_changed, dispatch_uid="tryon.masking.forget_secrets")
def forget_secrets(**kwargs: Any) -> None:
    """Look them up anew."""
    _of_settings.cache_clear()


def secrets_in(name: object, value: object, inside: bool = False) -> Iterator[str]:
    """The texts in ``value`` that have the name of a secret, or are a ``Secret``."""
    inside = inside or (isinstance(name, str) and SECRET_NAME.search(name) is not None)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(key, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in("", item, inside)
    elif isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, str) and inside:
        yield value


def _written(secret: str) -> Iterator[str]:
    """The secret as it may stand in a text, in lower case."""
    secret = secret.strip()
    if len(secret) >= SHORTEST:
        yield secret.lower()
        yield quote(secret, safe="").lower()
        yield repr(secret)[1:-1].lower()
