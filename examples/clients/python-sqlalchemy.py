#!/usr/bin/python3
"""Guest tokens with SQLAlchemy, over psycopg 2."""

# clients.md
import json

from sqlalchemy import text

TRY_LATER = ("08001", "08006", "53400", "58000")


def one_token(connection, addresses):
    return connection.execute(text(
        "SELECT token, refresh_token FROM sw_create_guest_token("
        "CAST(:addresses AS uuid[]), expires_in => :life)"),
        {"addresses": addresses, "life": "30 min"}).one()


def many_tokens(connection, rows):
    # one call after the other, unless the role has read_ahead
    return connection.execute(text(
        "SELECT r.id, t.* FROM jsonb_to_recordset(CAST(:rows AS jsonb))"
        " AS r(id int, addresses uuid[]),"
        " sw_try_create_guest_token(r.addresses) t"),
        {"rows": json.dumps(rows)}).all()


def token_unless_down(connection, addresses):
    token, refresh_token, code, error = connection.execute(text(
        "SELECT * FROM sw_try_create_guest_token("
        "CAST(:addresses AS uuid[]), expires_in => :life)"),
        {"addresses": addresses, "life": "30 min"}).one()
    if code in TRY_LATER:
        return None
    if code:
        raise RuntimeError(f"{code}: {error}")
    return token, refresh_token


def cancel(connection):         # from another thread
    connection.connection.driver_connection.cancel()
# end


import sqlalchemy  # noqa: E402
from sqlalchemy import orm  # noqa: E402
from sqlalchemy.dialects import postgresql  # noqa: E402
from sqlalchemy.exc import DBAPIError  # noqa: E402

import check  # noqa: E402


def engine(user):
    return sqlalchemy.create_engine(f"postgresql+psycopg2://{user}@/")


def connect(user):
    return engine(user).execution_options(
        isolation_level="AUTOCOMMIT").connect()


def execute(connection, sql, **values):
    return connection.execute(text(sql), values).fetchone()


class Guest(orm.declarative_base()):
    __tablename__ = "guest"
    id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
    addresses = sqlalchemy.Column(postgresql.ARRAY(postgresql.UUID))
    note = sqlalchemy.Column(sqlalchemy.Text)
    token = sqlalchemy.Column(sqlalchemy.Text)
    refresh_token = sqlalchemy.Column(sqlalchemy.Text)


print("SQLAlchemy", sqlalchemy.__version__)
check.check_snippet(connect, execute, one_token, many_tokens,
                    token_unless_down, cancel)

with engine("down").begin() as down:
    check.store_and_ask(down, execute, token_unless_down)
check.check_stored(connect("down"), execute, 1)

# the pool keeps a connection whose call has failed with class 08
down = connect("down")
try:
    one_token(down, [check.ADDRESS])
except DBAPIError as error:
    check.check(error.orig.pgcode == "08001" and
                not error.connection_invalidated, "an outage")

app = connect("app")
check.check_fails("42601", 'syntax error at or near ":"', execute, app,
                  "SELECT * FROM sw_create_guest_token(:addresses::uuid[])")
try:
    execute(app, "SELECT * FROM sw_create_guest_token(:addresses)",
            addresses=[check.ADDRESS])
except DBAPIError as error:
    check.check("function sw_create_guest_token(text[]) does not exist"
                in str(error), error)

# the trigger's token is there when the object is read again, and changing
# anything else mints nothing
for expires in True, False:
    with orm.Session(engine("app"), expire_on_commit=expires) as session:
        guest = Guest(id=1, addresses=[check.ADDRESS])
        session.add(guest)
        session.commit()
        check.check((guest.token is not None) == expires, "after a commit")
        session.refresh(guest)
        token = guest.token
        guest.note = "called back"
        session.commit()
        session.refresh(guest)
        check.check(guest.token == token, "minted again")
        session.delete(guest)
        session.commit()
