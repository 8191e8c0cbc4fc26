"""A lazy, typed view of the ``TRYON`` setting.

Every access reads ``django.conf.settings``: nothing is read at import time and ``override_settings`` just works.
Unknown keys and wrong types are found by ``manage.py check`` (see checks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from django.conf import settings

T = TypeVar("T")

DEFAULT_PROMPT = (
    "take the person from the first reference image and the garment and the setting from the second image, "
    "virtual try on should match the model's body. catalogue shoot. 4k. photorealistic. new shot and visual. "
    "three quarter angle shot"
)


DAY = 24 * 3600
"""Seconds."""
MAX_AMOUNT = 1_000_000_000
"""Credits of one price or one grant: far from where a database's integers end."""


class Setting(Generic[T]):
    """One key of ``settings.TRYON``, with its default."""

    def __init__(
        self,
        default: T,
        kind: type | tuple[type, ...],
        *,
        least: float | None = None,
        most: float | None = None,
        choices: Sequence[T] = (),
    ) -> None:
        self.default = default
        self.kind = kind
        self.least = least
        """The smallest value that makes sense."""
        self.most = most
        """The largest one, where a larger would break something."""
        self.choices = choices
        """All values that make sense; empty if they cannot be counted."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | Setting[T]:
        if instance is None:
            return self
        value: T = getattr(settings, "TRYON", {}).get(self.name, self.default)
        return value


class Conf:
    """The settings of the app, in the order of the README's reference."""

    PROVIDER = Setting[str]("local", str)
    """Alias in PROVIDERS of the provider that makes the pictures."""

    PROVIDERS = Setting[Mapping[str, Mapping[str, Any]]](
        {"local": {"BACKEND": "providers.local.LocalProvider"}}, Mapping
    )
    """``{alias: {"BACKEND": dotted path, "OPTIONS": {...}, "TIMEOUT": seconds, "MAX_RUNS": runs}}``, as in STORAGES.

    ``TIMEOUT`` is for one attempt, by default the time that the run has left, or two thirds of it where there is a
    fallback; a job that the vendor took has all that is left. ``MAX_RUNS`` is for one process.
    """

    FALLBACK_PROVIDERS = Setting[Sequence[str]]((), (list, tuple))
    """Aliases of those that are asked, in this order, when the one before is not available or has no time."""

    RETRIES = Setting[int](2, int, least=0, most=10)
    """How often one provider is asked once more in a run, for what may be over in a moment."""

    RETRY_PAUSE = Setting[float](0.5, (int, float), least=0, most=60)
    """Seconds before the first retry, at most; the pause doubles, and a random part of it is waited."""

    CIRCUIT_FAILURES = Setting[int](5, int, least=0)
    """Runs that a provider failed within CIRCUIT_WINDOW and that open its circuit; 0 leaves all of them closed."""

    CIRCUIT_WINDOW = Setting[float](60.0, (int, float), least=1, most=DAY)
    """Seconds in which failures are counted together."""

    CIRCUIT_PAUSE = Setting[float](30.0, (int, float), least=1, most=DAY)
    """Seconds for which nobody asks a provider whose circuit has opened."""

    CIRCUIT_CACHE = Setting[str]("default", str)
    """Alias in CACHES of the cache by which all processes know of open circuits."""

    MAX_RUNS = Setting[int](200, int, least=1)
    """Runs at once in one process. Whoever comes then hears 503 at once, and to try again."""

    PROMPT = Setting[str](DEFAULT_PROMPT, str)
    """What a provider that reads prompts is told, unless the caller says otherwise."""

    DEADLINE = Setting[float](120.0, (int, float), least=1, most=DAY)
    """Seconds one run may take, downloads included; then it fails and its credit goes back."""

    LEASE = Setting[float](60.0, (int, float), least=5, most=DAY)
    """Seconds after which a run whose process no longer renews its lease is taken for dead."""

    RECOVER_EVERY = Setting[float](60.0, (int, float), least=0, most=DAY)
    """Seconds between two looks of a server for what dead processes left; 0 leaves it to ``recover_tryons``."""

    ON_DISCONNECT = Setting[str]("cancel", str, choices=("cancel", "finish"))
    """What happens to a run whose client goes away once the provider was asked.

    ``cancel`` stops it and gives the credit back. ``finish`` lets it end if it has an Idempotency-Key, by which the
    picture can be asked for again; without one nobody could, and it is cancelled as well.
    """

    DRAIN = Setting[float](130.0, (int, float), least=0, most=DAY)
    """Seconds that running requests get to finish after SIGTERM; meanwhile new ones get a 503.

    What takes longer than that fails; its credit goes back. See lifespan.py.
    """

    IDEMPOTENCY_TTL = Setting[float](float(DAY), (int, float), least=1, most=1000 * DAY)
    """Seconds for which an Idempotency-Key is remembered."""

    PRICE = Setting[int](1, int, least=0, most=MAX_AMOUNT)
    """Credits one picture costs, unless PRICES says otherwise."""

    PRICES = Setting[Mapping[str, int]]({}, Mapping)
    """Credits by ``"provider"``, ``"provider/model"``, ``"provider/model/size"`` or ``"provider//size"``, the most
    particular first. ``provider`` is an alias of PROVIDERS; model and size are called what the provider calls them."""

    MAX_PICTURES = Setting[int](1, int, least=1, most=10)
    """Pictures that one request may ask for; each costs the price."""

    SIZES = Setting[Sequence[str]]((), (list, tuple))
    """Sizes that a request may ask for, of ``"1k"``, ``"2k"`` and ``"4k"``; give those that cost more a price."""

    CREDITS_BACKEND = Setting[str]("tryon.credits.LedgerCredits", str)
    """Dotted path of the class that keeps the balances."""

    AUTHENTICATION_CLASSES = Setting[Sequence[str]](("tryon.authentication.ApiKeyAuthentication",), (list, tuple))
    """Dotted paths of DRF authentication classes, tried in order."""

    USER_ID_FIELD = Setting[str]("", str)
    """The user model's field that ``user_id`` holds; empty means its USERNAME_FIELD."""

    THROTTLE_RPM = Setting[int](10, int, least=0)
    """Requests per minute and user (else per address); 0 switches the throttle off."""

    THROTTLE_FAIL_OPEN = Setting[bool](False, bool)
    """Let requests through while the counting cache is down. Each of them may cost money."""

    TRUSTED_PROXIES = Setting[int](0, int, least=0)
    """How many proxies of your own append to X-Forwarded-For; with 0 the app ignores the header.

    The server may not: uvicorn takes the client's address from it by itself where the peer is 127.0.0.1, ::1 or in
    ``FORWARDED_ALLOW_IPS``. Without a proxy of yours start it with ``--no-proxy-headers``.
    """

    KEY_GUESSES = Setting[int](10, int, least=0)
    """Different wrong API keys a minute from one address, or for one key's prefix, after which no key is looked at
    from there; 0 looks at all of them."""

    FETCH_URLS = Setting[bool](True, bool)
    """Whether photos may be given as URLs, by requests and commands; otherwise only the photos themselves."""

    FETCH_ALLOWED_HOSTS = Setting[Sequence[str]]((), (list, tuple))
    """``host`` or ``host:port`` names that may be fetched although they are private. For development."""

    FETCH_TIMEOUT = Setting[float](15.0, (int, float), least=1)
    """Seconds one image may take to download, redirects included."""

    MAX_DOWNLOADS = Setting[int](20, int, least=2)
    """Downloads at once in one process; more wait for their turn."""

    MAX_IMAGE_BYTES = Setting[int](10 * 1024 * 1024, int, least=1)
    """Bytes one input image may have."""

    MAX_IMAGE_PIXELS = Setting[int](51_000_000, int, least=1)
    """Pixels one image may have; larger ones are never decoded."""

    MIN_IMAGE_SIDE = Setting[int](64, int, least=1)
    """Pixels the shorter side of an input image must have."""

    PHOTO_MEMORY = Setting[int](64 * 1024 * 1024, int, least=1)
    """Bytes that photos take of one process, until the provider has answered, each counted twice for its copies; more
    wait."""

    DECODE_MEMORY = Setting[int](160 * 1024 * 1024, int, least=1)
    """Bytes that decoding takes at once in one process. More wait; a photo that alone needs more is refused."""

    MAX_BODY_BYTES = Setting[int](30 * 1024 * 1024, int, least=1)
    """Bytes the body of one API request may have: two photos of MAX_IMAGE_BYTES fit in, in base64."""

    KEEP_INPUTS = Setting[bool](False, bool)
    """Whether the photos, without their metadata, are stored beside the picture, and deleted with it."""

    STORAGE = Setting[str]("default", str)
    """Alias in STORAGES of the storage that keeps the results."""

    SIGNED_URLS = Setting[int](0, int, least=0, most=7 * DAY)
    """Seconds for which an address of a picture works, which the app then serves itself; 0 gives out the storage's own
    addresses."""

    SERVICE_NAME = Setting[str]("sakura-rasa-inference", str)
    """What ``GET /`` calls this service."""


conf = Conf()


def known_settings() -> dict[str, Setting[Any]]:
    """Every key that TRYON may have."""
    return {name: value for name, value in vars(Conf).items() if isinstance(value, Setting)}
