#!/usr/bin/python3
"""Guest tokens with psycopg 2."""

# clients.md
import psycopg2
from psycopg2.extras import Json

TRY_LATER = ("08001", "08006", "53400", "58000")


def one_token(connection, addresses):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT token, refresh_token FROM sw_create_guest_token("
            "%s::uuid[], expires_in => %s)", [addresses, "30 min"])
        return cursor.fetchone()


def many_tokens(connection, rows):
    # one call after the other, unless the role has read_ahead
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id, t.* FROM jsonb_to_recordset(%s)"
            " AS r(id int, addresses uuid[]),"
            " sw_try_create_guest_token(r.addresses) t", [Json(rows)])
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
    connection.cancel()
# end


import uuid  # noqa: E402

import psycopg2.errors  # noqa: E402

import check  # noqa: E402


def connect(user):
    connection = psycopg2.connect(user=user)
    connection.autocommit = True
    return connection


def execute(connection, sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()


print("psycopg2", psycopg2.__version__)
check.check_snippet(connect, execute, one_token, many_tokens,
                    token_unless_down, cancel)

with psycopg2.connect(user="down") as down:     # a transaction
    check.store_and_ask(down, execute, token_unless_down)
check.check_stored(connect("down"), execute, 1)
check.check(all(issubclass(psycopg2.errors.lookup(code),
                           psycopg2.OperationalError) for code in TRY_LATER),
            "another class")

app = connect("app")
check.check_traps(app, execute)
check.check_fails("42883", "function sw_create_guest_token(text[])"
                  " does not exist", execute, app,
                  "SELECT * FROM sw_create_guest_token(%s)", [check.ADDRESS])
check.check_fails(None, "can't adapt type 'UUID'", execute, app,
                  "SELECT * FROM sw_create_guest_token(%s::uuid[])",
                  [uuid.UUID(check.ADDRESS)])
# the statement's text has the values, and may be logged
check.check("secret" in execute(app, "SELECT current_query(), %s",
                                "secret")[0], "no value in the text")
