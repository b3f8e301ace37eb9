#!/usr/bin/python3
"""Settings behind PgBouncer in transaction mode, with psycopg 3.

PGBOUNCER_HOST and PGBOUNCER_PORT say where it is; its pools have one server
connection for each role.
"""

import os
import subprocess

import psycopg
from psycopg.types.json import Jsonb

import check

SHOW = "SHOW sw_guest_token.timeout"


def connect(user, **options):
    return psycopg.connect(user=user, autocommit=True,
                           host=os.environ["PGBOUNCER_HOST"],
                           port=os.environ["PGBOUNCER_PORT"], **options)


def execute(connection, sql):
    return connection.execute(sql).fetchone()[0]


print(subprocess.check_output(["pgbouncer", "-V"], text=True).splitlines()[0])

# options in a connection string are refused
try:
    connect("app", options="-c sw_guest_token.timeout=3s")
    check.check(False, "options are allowed")
except psycopg.OperationalError as error:
    check.check("unsupported startup parameter" in str(error), error)

# SET changes the server connection, which the next client gets
with connect("app") as first, connect("app") as second:
    check.check(execute(second, SHOW) == "10s", "the default")
    first.execute("SET sw_guest_token.timeout = '3s'")
    check.check(execute(second, SHOW) == "3s", "no leak")
    first.execute("RESET sw_guest_token.timeout")
    with first.transaction():
        first.execute("SET LOCAL sw_guest_token.timeout = '3s'")
        check.check(execute(first, SHOW) == "3s", "SET LOCAL")
    check.check(execute(second, SHOW) == "10s", "SET LOCAL leaks")

# the role's own settings take effect: it reads ahead
with connect("ahead") as ahead:
    check.check(execute(ahead, "SHOW sw_guest_token.read_ahead") == "on",
                "ALTER ROLE ... SET")
    check.check_rows(ahead.execute(
        "SELECT r.id, t.*"
        " FROM jsonb_to_recordset(%s) AS r(id int, addresses uuid[]),"
        " sw_try_create_guest_token(r.addresses) t", [Jsonb(check.ROWS)]))
