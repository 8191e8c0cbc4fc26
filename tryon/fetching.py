"""The only place that opens a URL somebody typed."""

from __future__ import annotations

import logging

from django.core.files.base import File

from providers.downloads import DownloadFailed, TooLarge, download_to, host

from .bodies import unnamed_file
from .conf import conf
from .exceptions import ImageTooLarge, ImageUnreachable

logger = logging.getLogger("tryon.fetching")


async def fetch(url: str, *, field: str) -> File[bytes]:
    """The body behind ``url``, at most ``MAX_IMAGE_BYTES``, within ``FETCH_TIMEOUT`` seconds; close it.

    Only public addresses are dialled, whatever DNS or redirects say (``providers.downloads``). Whatever goes wrong
    the client hears one vague ``ImageUnreachable`` that names ``field``; the log says what it was. More bytes
    than allowed raise ``ImageTooLarge``.
    """
    if not conf.FETCH_URLS:
        raise ImageUnreachable(f"{field}: this server takes no URLs of photos. Send the photo itself.", field=field)
    limit, hosts = conf.MAX_IMAGE_BYTES, conf.FETCH_ALLOWED_HOSTS
    file = unnamed_file()  # on the disk, until there is room for it
    try:
        await download_to(file, url, max_bytes=limit, timeout=conf.FETCH_TIMEOUT, allowed_hosts=hosts)
        size = file.tell()
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, TooLarge):
            raise ImageTooLarge(f"{field}: the image has more than {limit:,} bytes.", field=field) from None
        if isinstance(error, DownloadFailed):
            logger.warning("Could not fetch %s: %s", field, error, extra={"host": host(url)})
            raise ImageUnreachable(f"{field}: {ImageUnreachable.default_detail}", field=field) from None
        raise
    photo = File(file, name=field)
    photo.size = size
    return photo
