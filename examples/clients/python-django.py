#!/usr/bin/python3
"""Guest tokens with Django, over psycopg 2."""

import django_setup

# clients.md
import json

from django.contrib.postgres.fields import ArrayField
from django.db import models

TRY_LATER = ("08001", "08006", "53400", "58000")


def one_token(connection, addresses):           # django.db.connection
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT token, refresh_token FROM sw_create_guest_token("
            "%s::uuid[], expires_in => %s)", [addresses, "30 min"])
        return cursor.fetchone()


def many_tokens(connection, rows):
    # one call after the other, unless the role has read_ahead
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id, t.*"
            " FROM jsonb_to_recordset(%s) AS r(id int, addresses uuid[]),"
            " sw_try_create_guest_token(r.addresses) t", [json.dumps(rows)])
        return cursor.fetchall()


def token_unless_down(connection, addresses):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM sw_try_create_guest_token("
            "%s::uuid[], expires_in => %s)", [addresses, "30 min"])
        token, refresh_token, code, error = cursor.fetchone()
    if code in TRY_LATER:
        return None
    if code:
        raise RuntimeError(f"{code}: {error}")
    return token, refresh_token


def cancel(connection):         # from another thread
    connection.connection.cancel()


class Guest(models.Model):      # its table has sw_guest_token_trigger()
    addresses = ArrayField(models.UUIDField())
    note = models.TextField(null=True)
    token = models.TextField(null=True, editable=False)
    refresh_token = models.TextField(null=True, editable=False)

    class Meta:
        app_label = "guests"
        db_table = "guest"
        managed = False


def new_guest(addresses):
    guest = Guest.objects.create(addresses=addresses)
    guest.refresh_from_db(fields=["token", "refresh_token"])
    return guest


def take_note(guest, note):
    guest.note = note
    guest.save(update_fields=["note"])
# end


from django.db import connections, transaction  # noqa: E402

import check  # noqa: E402


def execute(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()


def connect(user):
    connection = connections["default" if user == "app" else user]
    connection.ensure_connection()
    connection.inc_thread_sharing()
    if user == "slow":
        connection = connections["watcher"] if connect.slow else connection
        connection.inc_thread_sharing()
        connect.slow = True
    return connection


connect.slow = False
print("Django", django_setup.VERSION)
check.check_snippet(connect, execute, one_token, many_tokens,
                    token_unless_down, cancel)
check.check_fails("42883", "function sw_create_guest_token(text[])"
                  " does not exist", execute, connections["default"],
                  "SELECT * FROM sw_create_guest_token(%s)", [check.ADDRESS])

with transaction.atomic("down"):
    check.store_and_ask(connections["down"], execute, token_unless_down)
check.check_stored(connections["down"], execute, 1)


def stored(guest):
    return Guest.objects.values_list("token", flat=True).get(pk=guest.pk)


# create() does not know the token, and save() overwrites it with None, which
# the trigger takes for a row without a token
guest = Guest.objects.create(addresses=[check.ADDRESS])
token = stored(guest)
check.check(guest.token is None and token is not None, "create() knows it")
guest.save()
check.check(stored(guest) not in (None, token), "save() mints nothing")

guest = new_guest([check.ADDRESS])
token = guest.token
check.check(token is not None and token == stored(guest), "refresh_from_db")
guest.save()
check.check(token == stored(guest), "save() mints after refresh_from_db()")
guest = Guest.objects.create(addresses=[check.ADDRESS])
token = stored(guest)
take_note(guest, "called back")
check.check(token == stored(guest), "update_fields mints")
Guest.objects.all().delete()
