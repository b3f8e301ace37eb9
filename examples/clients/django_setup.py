"""Sets up Django for python-django.py, whose module has models."""

import sys

import django
from django.conf import settings

# From 4.2 on, Django would take psycopg 3 where both are installed.
sys.modules["psycopg"] = None

VERSION = django.get_version()
USERS = {"default": "app", "ahead": "ahead", "slow": "slow",
         "watcher": "slow", "down": "down"}

settings.configure(
    DATABASES={name: {"ENGINE": "django.db.backends.postgresql",
                      "NAME": "postgres", "USER": user}
               for name, user in USERS.items()},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()
