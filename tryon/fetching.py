"""The only place that opens a URL somebody typed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from providers.downloads import DownloadFailed, TooLarge, download, host

from .conf import conf
from .exceptions import ImageTooLarge, ImageUnreachable

logger = logging.getLogger("tryon.fetching")


async def fetch(url: str, *, field: str, before_body: Callable[[int], Awaitable[None]] | None = None) -> bytes:
    """The body behind ``url``, at most ``MAX_IMAGE_BYTES``, within ``FETCH_TIMEOUT`` seconds.

    Only public addresses are dialled, whatever DNS or redirects say (``providers.downloads``). Whatever goes wrong
    the client hears one vague ``ImageUnreachable`` that names ``field``; the log says what it was. More bytes
    than allowed raise ``ImageTooLarge``.

    ``before_body`` is awaited before the body is read, with the bytes that it may have. Its time does not count.
    """
    if not conf.FETCH_URLS:
        raise ImageUnreachable(f"{field}: this server takes no URLs of photos. Send the photo itself.", field=field)
    limit = conf.MAX_IMAGE_BYTES
    try:
        return await download(
            url,
            max_bytes=limit,
            timeout=conf.FETCH_TIMEOUT,
            allowed_hosts=conf.FETCH_ALLOWED_HOSTS,
            before_body=before_body,
        )
    except TooLarge:
        raise ImageTooLarge(f"{field}: the image has more than {limit:,} bytes.", field=field) from None
    except DownloadFailed as error:
        logger.warning("Could not fetch %s: %s", field, error, extra={"host": host(url)})
        raise ImageUnreachable(f"{field}: {ImageUnreachable.default_detail}", field=field) from None
