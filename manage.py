#!/usr/bin/env python
"""Django's command line."""

import sys


def main() -> None:
    try:
        from django.core.management import execute_from_command_line

        from settings.environment import choose_settings
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed in this environment. Activate the virtualenv and run "
            "`pip install -r requirements.txt`."
        ) from error
    choose_settings()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
