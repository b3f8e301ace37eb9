#!/usr/bin/python3
"""Guest tokens with psycopg 3."""

# clients.md
import psycopg
from psycopg.types.json import Jsonb

TRY_LATER = ("08001", "08006", "53400", "58000")


def one_token(connection, addresses):
    return connection.execute(
        "SELECT token, refresh_token FROM sw_create_guest_token("
        "%s::uuid[], expires_in => %s)", [addresses, "30 min"]).fetchone()


def many_tokens(connection, rows):
    # one call after the other, unless the role has read_ahead
    return connection.execute(
        "SELECT r.id, t.*"
        " FROM jsonb_to_recordset(%s) AS r(id int, addresses uuid[]),"
        " sw_try_create_guest_token(r.addresses) t", [Jsonb(rows)]).fetchall()


def token_unless_down(connection, addresses):
    token, refresh_token, code, error = connection.execute(
        "SELECT * FROM sw_try_create_guest_token("
        "%s::uuid[], expires_in => %s)", [addresses, "30 min"]).fetchone()
    if code in TRY_LATER:
        return None
    if code:
        raise RuntimeError(f"{code}: {error}")
    return token, refresh_token


def token_with_autocommit(connection, addresses):
    try:                        # inside a transaction, this would abort it
        return one_token(connection, addresses)
    except psycopg.Error as error:
        if error.sqlstate in TRY_LATER:
            return None
        raise


def cancel(connection):         # from another thread
    connection.cancel()
# end


import check  # noqa: E402


def connect(user):
    return psycopg.connect(user=user, autocommit=True)


def execute(connection, sql, *values):
    return connection.execute(sql, values).fetchone()


print("psycopg", psycopg.__version__)
check.check_snippet(connect, execute, one_token, many_tokens,
                    token_unless_down, cancel)

app = connect("app")
check.check_traps(app, execute)
# a list of strings needs no cast, and a value is not part of the statement
check.check_token(execute(app, "SELECT * FROM sw_create_guest_token(%s)",
                          [check.ADDRESS]))
check.check("secret" not in execute(app, "SELECT current_query(), %s::text",
                                    "secret")[0], "a parameter in the text")

# what was stored before the call outlives an outage; a caught error undoes it,
# because the transaction is aborted
for ask, rows in (token_unless_down, 1), (token_with_autocommit, 1):
    with psycopg.connect(user="down") as down:      # opens a transaction
        check.store_and_ask(down, execute, ask)
        if ask is token_with_autocommit:
            check.check_fails("25P02", "current transaction is aborted",
                              execute, down, "SELECT 1")
    check.check_stored(connect("down"), execute, rows)

# with autocommit, it undoes nothing
down = connect("down")
check.store_and_ask(down, execute, token_with_autocommit)
check.check_stored(down, execute, 2)
check.check(not down.closed, "the connection is closed")
check.check(all(issubclass(psycopg.errors.lookup(code),
                           psycopg.OperationalError) for code in TRY_LATER),
            "another class")

# a cursor that the server keeps does not read ahead
for statement, reads_ahead in ("", True), ("DECLARE kept CURSOR FOR ", False):
    plan = connect("ahead").execute(
        f"EXPLAIN {statement}SELECT t.*"
        " FROM jsonb_to_recordset('[]') AS r(id int, addresses uuid[]),"
        " sw_try_create_guest_token(r.addresses) t").fetchall()
    check.check(("Guest Tokens" in str(plan)) == reads_ahead, plan)
