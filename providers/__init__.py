"""AI providers of the try-on app: one file per vendor, chosen by settings, free of Django models."""
