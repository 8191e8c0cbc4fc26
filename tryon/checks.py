"""System checks: what is wrong with the settings, and the fix.

======  ==========================================================================================
E001    TRYON is not a dictionary, has an unknown key or a value that makes no sense
E002    a provider or fallback cannot be used: no such alias, wrong BACKEND, unknown option, missing key or package
E003    the cache of the throttle cannot count
E004    an authentication class cannot be used by an async view
E005    PRICES names no provider, or no price
E006    CREDITS_BACKEND, STORAGE or CIRCUIT_CACHE cannot be used
E007    USER_ID_FIELD is no field of the user model
E008    rest_framework is not in INSTALLED_APPS
E009    a model in use was shut down
W001    the cache of the throttle counts in one process only
W002    SQLite without IMMEDIATE transactions
W003    persistent connections without a pool
W004    FETCH_ALLOWED_HOSTS in production
W005    the pictures have no folder or no address of their own
W006    the provider in use lacks something on this machine, such as its model files
W007    PRICES is about a model or size that its provider does not have
W008    a model in use will be shut down within 60 days
W009    the cache of the circuits forgets them, or is each process's own
W010    requests may ask for what the provider in use cannot make
W011    a secret stands in a settings file
I001    something to know about a provider in use, such as what its vendor does with photos
======  ==========================================================================================
"""

from __future__ import annotations

import ast
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Info, Warning  # noqa: A004
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, InvalidStorageError, storages
from django.db import connections
from django.utils.module_loading import import_string

from providers.base import SIZES, Problem

from . import ageing, masking
from .conf import MAX_AMOUNT, conf, known_settings
from .credits import get_credits, price_names
from .dispatch import aliases_in_use, providers

Apps = Sequence[AppConfig] | None
Check = Callable[..., list[CheckMessage]]


def _of_a_sane_dictionary(check: Check) -> Check:
    """The check says nothing where ``check_settings()`` finds values of which nothing can be made."""

    @wraps(check)
    def checked(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
        return [] if any(_check_types()) else check(app_configs, **kwargs)

    return checked


def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """TRYON itself."""
    problems = list(_check_types())
    # The values of a broken dictionary cannot be looked at any further.
    return problems or [
        *_check_authentication(),
        *_check_prices(),
        *_check_sizes(),
        *_check_parts(),
        *_check_user_id_field(),
        *_check_rest_framework(),
        *_check_allowed_hosts(),
        *_check_media(),
    ]


def _check_types() -> Iterator[CheckMessage]:
    tryon = getattr(settings, "TRYON", {})
    if not isinstance(tryon, Mapping):
        yield Error(f"TRYON is {tryon!r}.", hint='Make it a dictionary: TRYON = {"PROVIDER": …}.', id="tryon.E001")
        return
    known = known_settings()
    for name, value in tryon.items():
        if name not in known:
            hint = f"Remove it, or use one of: {', '.join(known)}."
            yield Error(f"TRYON has an unknown key {name!r}.", hint=hint, id="tryon.E001")
            continue
        kind = known[name].kind
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(k.__name__.lower() for k in kinds)
            hint = f"Give it a value of type {expected}, for instance {known[name].default!r}."
            yield Error(f'TRYON["{name}"] is {value!r}.', hint=hint, id="tryon.E001")
        elif (least := known[name].least) is not None and not (isinstance(value, int | float) and value >= least):
            yield Error(f'TRYON["{name}"] is {value!r}.', hint=f"Give it {least} or more.", id="tryon.E001")
        elif (most := known[name].most) is not None and not (isinstance(value, int | float) and value <= most):
            yield Error(f'TRYON["{name}"] is {value!r}.', hint=f"Give it {most:,} at most.", id="tryon.E001")
        elif (choices := known[name].choices) and value not in choices:
            hint = f"Use one of: {', '.join(map(repr, choices))}."
            yield Error(f'TRYON["{name}"] is {value!r}.', hint=hint, id="tryon.E001")
        else:
            yield from _check_items(name, value)


LISTS_OF_NAMES = ("FALLBACK_PROVIDERS", "AUTHENTICATION_CLASSES", "FETCH_ALLOWED_HOSTS", "SIZES")


def _check_items(name: str, value: Any) -> Iterator[CheckMessage]:
    """What is in the lists and in PROVIDERS."""
    for item in value if name in LISTS_OF_NAMES else ():
        if not isinstance(item, str):
            yield Error(f'TRYON["{name}"] has {item!r}.', hint="Give names, each a text.", id="tryon.E001")
    for alias, entry in value.items() if name == "PROVIDERS" else ():
        where = f'TRYON["PROVIDERS"][{alias!r}]'
        if not isinstance(alias, str):
            yield Error(f"{where}: the alias is no text.", hint="Give each provider a name.", id="tryon.E001")
        if not isinstance(entry, Mapping):
            hint = 'Give a dictionary, {"BACKEND": …, "OPTIONS": {…}}.'
            yield Error(f"{where} is no dictionary but {type(entry).__name__}.", hint=hint, id="tryon.E001")
        elif not isinstance(entry.get("OPTIONS", {}), Mapping):
            yield Error(f'{where}["OPTIONS"] is no dictionary.', hint='Give {"option": value}.', id="tryon.E001")


def _check_authentication() -> Iterator[CheckMessage]:
    for path in conf.AUTHENTICATION_CLASSES:
        where = f'TRYON["AUTHENTICATION_CLASSES"] names {path!r}'
        try:
            cls = import_string(path)
        except ImportError as error:
            hint = "Give the dotted path of a DRF authentication class."
            yield Error(f"{where}, which cannot be imported: {error}", hint=hint, id="tryon.E004")
            continue
        if iscoroutinefunction(getattr(cls, "authenticate", None)):
            hint = "Use a class with a synchronous authenticate(); it runs in a thread."
            yield Error(f"{where}, whose authenticate() is async.", hint=hint, id="tryon.E004")


def _check_prices() -> Iterator[CheckMessage]:
    for name, price in conf.PRICES.items():
        if not _is_priceable(name):
            hint = (
                f"Use one of {', '.join(conf.PROVIDERS)}, alone or as in "
                '"alias/model", "alias/model/size" or "alias//size".'
            )
            yield Error(
                f'TRYON["PRICES"] has the price {price!r} for {name!r}, which names nothing of PROVIDERS.',
                hint=hint,
                id="tryon.E005",
            )
        if not isinstance(price, int) or isinstance(price, bool) or not 0 <= price <= MAX_AMOUNT:
            hint = f"Give whole credits, 0 to {MAX_AMOUNT:,}."
            yield Error(f'TRYON["PRICES"][{name!r}] is {price!r}.', hint=hint, id="tryon.E005")


def _check_sizes() -> Iterator[CheckMessage]:
    for size in conf.SIZES:
        if size not in SIZES:
            hint = f"Use some of: {', '.join(map(repr, SIZES))}."
            yield Error(f'TRYON["SIZES"] has {size!r}, which is no size.', hint=hint, id="tryon.E001")


def _is_priceable(name: object) -> bool:
    """Whether this begins with an alias; the rest only the vendor knows."""
    if not isinstance(name, str) or name.endswith("/"):
        return False
    return any(name == alias or name.startswith(f"{alias}/") for alias in conf.PROVIDERS)


def _check_parts() -> Iterator[CheckMessage]:
    try:
        get_credits()
    except ImproperlyConfigured as error:
        yield Error(str(error), hint="See the README on credits.", id="tryon.E006")
    if conf.CIRCUIT_CACHE not in settings.CACHES:
        hint = f"Use one of: {', '.join(settings.CACHES)}."
        yield Error(f'TRYON["CIRCUIT_CACHE"] is {conf.CIRCUIT_CACHE!r}.', hint=hint, id="tryon.E006")
    try:
        storages[conf.STORAGE]
    except (InvalidStorageError, ImportError, ImproperlyConfigured) as error:
        hint = "Name an alias of STORAGES and see that its backend's package is installed."
        yield Error(f'TRYON["STORAGE"] is {conf.STORAGE!r}: {error}', hint=hint, id="tryon.E006")


def _check_user_id_field() -> Iterator[CheckMessage]:
    model = get_user_model()
    try:
        model._meta.get_field(conf.USER_ID_FIELD or model.USERNAME_FIELD)
    except FieldDoesNotExist:
        names = ", ".join(field.name for field in model._meta.concrete_fields)
        hint = f"Name a field that no two users share, or leave it empty. {model.__name__} has: {names}."
        yield Error(f'TRYON["USER_ID_FIELD"] is {conf.USER_ID_FIELD!r}.', hint=hint, id="tryon.E007")


def _check_rest_framework() -> Iterator[CheckMessage]:
    if not apps.is_installed("rest_framework"):
        message = '"rest_framework" is not in INSTALLED_APPS; the browsable API would have no templates.'
        yield Error(message, hint='Add "rest_framework" to INSTALLED_APPS.', id="tryon.E008")


def _check_media() -> Iterator[CheckMessage]:
    with contextlib.suppress(InvalidStorageError, ImportError, ImproperlyConfigured):  # E006
        storage = storages[conf.STORAGE]
        if isinstance(storage, FileSystemStorage) and not (
            storage.base_location and (conf.SIGNED_URLS or (storage.base_url or "").strip("/"))
        ):
            yield Warning(
                f'TRYON["STORAGE"] is {conf.STORAGE!r}, which keeps pictures in {storage.location} '
                f"and calls them {storage.base_url!r}.",
                hint='Set MEDIA_ROOT and MEDIA_URL, for instance BASE_DIR / "media" and "media/", and serve them.',
                id="tryon.W005",
            )


def _check_allowed_hosts() -> Iterator[CheckMessage]:
    if conf.FETCH_ALLOWED_HOSTS and not settings.DEBUG:
        yield Warning(
            f'TRYON["FETCH_ALLOWED_HOSTS"] opens {list(conf.FETCH_ALLOWED_HOSTS)!r} to whoever sends a URL.',
            hint="Leave it empty in production.",
            id="tryon.W004",
        )


@_of_a_sane_dictionary
def check_providers(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """The providers in use, and the shape of all the others."""
    messages: list[CheckMessage] = []
    in_use = aliases_in_use()
    for alias in dict.fromkeys([*in_use, *providers]):
        try:
            provider = providers[alias]
        except ImproperlyConfigured as error:
            messages.append(Error(str(error), hint='See "Providers" in the README.', id="tryon.E002"))
            continue
        if alias in in_use:
            messages += [_as_message(alias, problem) for problem in provider.check()]
    return messages


@_of_a_sane_dictionary
def check_offers(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """What requests may ask for and the provider in use cannot make."""
    messages: list[CheckMessage] = []
    with contextlib.suppress(ImproperlyConfigured):  # E002
        provider = providers[conf.PROVIDER]
        offers = [size for size in conf.SIZES if size not in provider.sizes]
        if provider.max_pictures < conf.MAX_PICTURES:
            offers.append(f"{conf.MAX_PICTURES} pictures")
        for offer in offers:
            text = f"TRYON lets requests ask for {offer}, which the provider {conf.PROVIDER!r} cannot make."
            makes = f"up to {provider.max_pictures} pictures and the sizes {', '.join(provider.sizes) or '(none)'}"
            hint = f"It makes {makes}. Lower MAX_PICTURES, or take the size out of SIZES."
            messages.append(Warning(text, hint=hint, id="tryon.W010"))
    return messages


def _as_message(alias: str, problem: Problem) -> CheckMessage:
    text = f"Provider {alias!r}: {problem.message}"
    if not problem.of_settings:
        return Warning(text, hint=problem.hint, id="tryon.W006")
    if not problem.fatal:
        return Info(text, hint=problem.hint, id="tryon.I001")
    return Error(text, hint=problem.hint, id="tryon.E002")


CANNOT_COUNT = ("DatabaseCache", "FileBasedCache", "DummyCache")


@_of_a_sane_dictionary
def check_prices(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Prices that no picture will ever have. What is no price at all, or of no provider, is E005."""
    names: dict[str, list[str]] = {}
    for alias in providers:
        with contextlib.suppress(ImproperlyConfigured):  # E002
            sizes = ("", *providers[alias].sizes)
            every = dict.fromkeys(name for size in sizes for name in price_names(providers[alias], size))
            names[alias] = [name for name in every if not name.endswith("/")]
    known = {name for each in names.values() for name in each}
    return [
        Warning(
            f'TRYON["PRICES"] has a price for {name!r}, a model or size that the provider does not have.',
            hint=f"Use one of: {', '.join(map(repr, names[alias]))}.",
            id="tryon.W007",
        )
        for name in conf.PRICES
        for alias in names
        if isinstance(name, str) and name.startswith(f"{alias}/") and name not in known
    ]


@_of_a_sane_dictionary
def check_models(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Models whose end is near or past. Those that their provider's class does not know are fine.

    These findings come by themselves, on a day when nobody changed anything. So they have a tag of their own, and a
    server that starts tells them without refusing to serve; and E009 is an error for whoever asks for the checks, but
    a warning from ``migrate`` and other commands that run them on the way.
    """
    end = Warning if _are_run_on_the_way() else Error
    messages: list[CheckMessage] = []
    for alias in aliases_in_use():
        with contextlib.suppress(ImproperlyConfigured):  # E002
            for model, days in ageing.ending_models(providers[alias]):
                when = f"{model.shutdown} ({ageing.in_words(days)})"
                verb = "will be" if days > 0 else "was"
                text = f"Provider {alias!r}: the model {model.name} {verb} shut down on {when}."
                hint = _instead(alias, model.successor)
                ended = days <= 0
                messages.append(end(text, hint, id="tryon.E009") if ended else Warning(text, hint, id="tryon.W008"))
    return messages


def _instead(alias: str, successor: str) -> str:
    where = f'the OPTIONS of TRYON["PROVIDERS"]["{alias}"]'
    if not successor:
        return f"Its vendor names no successor. Choose another model in {where}, or another provider."
    if " " in successor:  # it is not a model of the same provider
        return f"Use {successor}."
    return f"The successor: {successor}. Change the model in {where}."


def _are_run_on_the_way() -> bool:
    """Whether a command such as ``migrate`` runs the checks before its own work, and nobody asked for them."""
    program, command = (*sys.argv, "", "")[:2]
    return Path(program).name in ("manage.py", "django-admin") and command != "check"


@_of_a_sane_dictionary
def check_keys(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Keys of providers that stand in the code, for whoever reads it."""
    found = []
    for alias, entry in conf.PROVIDERS.items():
        for option, value in entry.get("OPTIONS", {}).items():
            for secret in masking.secrets_in(option, value):
                found += _stands_in_settings(f'TRYON["PROVIDERS"]["{alias}"]["OPTIONS"]["{option}"]', secret)
    return found


def check_secret_key(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """The same of SECRET_KEY, for ``check --deploy``."""
    return _stands_in_settings("SECRET_KEY", settings.SECRET_KEY)


def _stands_in_settings(name: str, secret: str) -> list[CheckMessage]:
    """A warning, which does not repeat it, for each place where a secret is written into the settings' source."""
    if len(secret) < masking.SHORTEST:
        return []
    hint = 'Read it from the environment, as in os.environ["OPENAI_API_KEY"], and get a new one: this one is known.'
    return [
        Warning(f"{name} stands in {path}, line {number}.", hint=hint, id="tryon.W011")
        for path in _settings_files()
        for number in _lines_with(secret, path.read_text(errors="replace"))
    ]


def _lines_with(secret: str, source: str) -> list[int]:
    """Numbers of the lines where a secret stands, or where the text begins that is written in pieces or escaped."""
    found = {number for number, line in enumerate(source.splitlines(), 1) if secret in line}  # in a comment, too
    for text, first, last in _texts_in(source):
        if secret in text and found.isdisjoint(range(first, last + 1)):
            found.add(first)
    return sorted(found)


@cache
def _texts_in(source: str) -> list[tuple[str, int, int]]:
    """The texts that a module makes of constants, each with its first and last line; none if it does not parse."""
    with warnings.catch_warnings(action="ignore"):  # Python has given them
        try:
            nodes = ast.walk(ast.parse(source))
            return [(_text(node), node.lineno, node.end_lineno or 0) for node in nodes if isinstance(node, ast.expr)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
    return ""


def _settings_files() -> Iterator[Path]:
    """The source of the settings module, and of what is loaded of the package that it is in."""
    module: str = getattr(settings, "SETTINGS_MODULE", None) or ""  # None after settings.configure()
    package = module.rpartition(".")[0]
    for name, loaded in sorted(sys.modules.items()):
        file = getattr(loaded, "__file__", None) or ""
        if (name in (module, package) or (package and name.startswith(f"{package}."))) and file.endswith(".py"):
            yield Path(file)


@_of_a_sane_dictionary
def check_throttle(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Whether the cache behind the throttle can count."""
    if not (conf.THROTTLE_RPM or conf.KEY_GUESSES):
        return []
    alias = getattr(settings, "RATELIMIT_USE_CACHE", "default")
    backend = str(settings.CACHES.get(alias, {}).get("BACKEND", ""))
    kind = backend.rpartition(".")[2]
    if kind in CANNOT_COUNT:
        message = f"CACHES[{alias!r}] is {backend}, which cannot count atomically; the throttle needs that."
        hint = "Use Redis or Memcached for it, or name another alias in RATELIMIT_USE_CACHE."
        return [Error(message, hint=hint, id="tryon.E003")]
    if kind == "LocMemCache" and not settings.DEBUG:
        message = f"CACHES[{alias!r}] is {backend}: with N processes the throttle lets N times as many through."
        hint = "Use Redis or Memcached, or run one process."
        return [Warning(message, hint=hint, id="tryon.W001")]
    return []


@_of_a_sane_dictionary
def check_circuits(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Whether the cache of the circuits can remember them, and for all processes."""
    backend = str(settings.CACHES.get(conf.CIRCUIT_CACHE, {}).get("BACKEND", ""))
    kind = backend.rpartition(".")[2]
    if kind == "DummyCache":
        what = "remembers nothing: no circuit ever opens"
    elif kind == "LocMemCache" and not settings.DEBUG:
        what = "is each process's own, and so are circuits"
    else:
        return []
    message = f"CACHES[{conf.CIRCUIT_CACHE!r}] is {backend}, which {what}."
    hint = 'Name a cache that all processes share in TRYON["CIRCUIT_CACHE"], or set CIRCUIT_FAILURES to 0.'
    return [Warning(message, hint=hint, id="tryon.W009")] if conf.CIRCUIT_FAILURES else []


def check_database(app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Options that parallel requests need. Run by ``migrate`` and ``check --database default``."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        config = connections[alias].settings_dict
        options = config.get("OPTIONS", {})
        vendor = connections[alias].vendor
        if vendor == "sqlite" and options.get("transaction_mode") != "IMMEDIATE":
            message = f"DATABASES[{alias!r}] is SQLite without IMMEDIATE transactions; parallel requests will fail."
            hint = 'Set OPTIONS to {"transaction_mode": "IMMEDIATE", "timeout": 20}.'
            messages.append(Warning(message, hint=hint, id="tryon.W002"))
        if config.get("CONN_MAX_AGE") and not options.get("pool"):
            message = f"DATABASES[{alias!r}] keeps connections (CONN_MAX_AGE), which async views leak."
            hint = 'Set CONN_MAX_AGE to 0; with PostgreSQL use OPTIONS = {"pool": True}.'
            messages.append(Warning(message, hint=hint, id="tryon.W003"))
    return messages
