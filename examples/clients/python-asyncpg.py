#!/usr/bin/python3
"""Guest tokens with asyncpg."""

# clients.md
import asyncio
import datetime
import json

import asyncpg

TRY_LATER = ("08001", "08006", "53400", "58000")


async def one_token(connection, addresses):
    return await connection.fetchrow(
        "SELECT token, refresh_token FROM sw_create_guest_token("
        "$1, expires_in => $2)", addresses, datetime.timedelta(minutes=30))


async def many_tokens(connection, rows):
    # one call after the other, unless the role has read_ahead
    return await connection.fetch(
        "SELECT r.id, t.*"
        " FROM jsonb_to_recordset($1) AS r(id int, addresses uuid[]),"
        " sw_try_create_guest_token(r.addresses) t", json.dumps(rows))


async def token_unless_down(connection, addresses):
    row = await connection.fetchrow(
        "SELECT * FROM sw_try_create_guest_token($1, expires_in => $2)",
        addresses, datetime.timedelta(minutes=30))
    if row["error_code"] in TRY_LATER:
        return None
    if row["error_code"]:
        raise RuntimeError(f"{row['error_code']}: {row['error']}")
    return row["token"], row["refresh_token"]


async def token_within(connection, addresses, seconds):     # or cancels
    return await asyncio.wait_for(one_token(connection, addresses), seconds)
# end


import check  # noqa: E402


async def check_fails(code, message, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        check.check(error.sqlstate == code and message in str(error),
                    f"{code} {message}: {error.sqlstate} {error}")
        return
    raise AssertionError(f"{code} {message}: it succeeded")


async def main():
    app = await asyncpg.connect(user="app")
    check.check_token(await one_token(app, [check.ADDRESS]))
    ahead = await asyncpg.connect(user="ahead")
    check.check_rows(await many_tokens(ahead, check.ROWS))
    check.check_token(await token_unless_down(app, [check.ADDRESS]))
    down = await asyncpg.connect(user="down")
    check.check(await token_unless_down(down, [check.ADDRESS]) is None,
                "an outage")
    async with down.transaction():
        await down.execute("INSERT INTO visit DEFAULT VALUES")
        check.check(await token_unless_down(down, [check.ADDRESS]) is None,
                    "an outage in a transaction")
    check.check(await down.fetchval("SELECT count(*) FROM visit") == 1,
                "what was stored is gone")
    await check_fails("22023", "addresses must have 1 to 10 elements",
                      one_token(app, []))
    try:
        await token_unless_down(app, [])
        check.check(False, "no failure")
    except RuntimeError as error:
        check.check(str(error).startswith("22023: addresses"), error)

    # time limits and cancelled tasks leave a connection that is free again
    slow = await asyncpg.connect(user="slow")
    watcher = await asyncpg.connect(user="slow")
    task = asyncio.ensure_future(one_token(slow, [check.ADDRESS]))
    await watcher.execute("SELECT until_called()")
    task.cancel()
    await asyncio.wait([task])
    check.check(task.cancelled() and await slow.fetchval("SELECT 1") == 1,
                "a cancelled task")
    call = "SELECT * FROM sw_create_guest_token($1)"
    for limited in (token_within(slow, [check.ADDRESS], 0.2),
                    slow.fetchrow(call, [check.ADDRESS], timeout=0.2)):
        try:
            await limited
            check.check(False, "no time limit")
        except asyncio.TimeoutError:
            check.check(await slow.fetchval("SELECT 1") == 1, "a time limit")

    bare = await app.fetchval("SELECT sw_create_guest_token($1)",
                              [check.ADDRESS])
    check.check_token(bare)     # asyncpg turns a composite type into a record
    call = "SELECT * FROM sw_create_guest_token($1, $2)"
    await check_fails("22000", "value out of int32 range",
                      app.fetch(call, [check.ADDRESS], 1900000000000))
    await check_fails("22000", "a sized iterable container expected",
                      app.fetch(call, check.ADDRESS, None))
    await check_fails("22000", "'str' object has no attribute 'days'",
                      app.fetch("SELECT * FROM sw_create_guest_token("
                                "$1, expires_in => $2)",
                                [check.ADDRESS], "30 min"))
    await check_fails("22000", "expected str, got list",
                      many_tokens_of(app, check.ROWS))


def many_tokens_of(connection, rows):
    return connection.fetch(
        "SELECT r.id FROM jsonb_to_recordset($1) AS r(id int)", rows)


print("asyncpg", asyncpg.__version__)
asyncio.run(main())
