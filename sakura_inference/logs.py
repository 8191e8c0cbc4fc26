"""The log file of the project."""

from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler


def rotating_file(filename: str, max_bytes: int, backups: int) -> ConcurrentRotatingFileHandler:
    """A handler for a file that several server processes write and rotate. Makes the folder when it is needed."""
    Path(filename).parent.mkdir(parents=True, exist_ok=True)
    return ConcurrentRotatingFileHandler(filename, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
