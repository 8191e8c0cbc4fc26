"""Settings of the tests' server processes: the tests' own, without the log file.

They are forked and killed: siblings would share the lock of the file, and hold it for one that is dead. What differs
from server to server is set when it is born (nursery.py).
"""

from settings.base import HANDLERS
from settings.test import *  # noqa: F403
from settings.test import LOGGING

LOGGING |= {"handlers": {**HANDLERS, "file": {"class": "logging.NullHandler"}}}
