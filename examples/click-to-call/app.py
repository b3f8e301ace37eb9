#!/usr/bin/python3
"""Click to call: serves a page, and guest tokens from PostgreSQL.

It knows no SignalWire credentials, and is given no refresh token: it logs in
as a role that may execute three functions and nothing else (schema.sql).
PGHOST, PGDATABASE, PGUSER and the like say where.

Errors go to the log; a browser gets only a status.
"""

import argparse
import asyncio
import logging
import pathlib

import psycopg
from aiohttp import web

HERE = pathlib.Path(__file__).parent
TOO_MANY = "53400"              # for SignalWire
REFUSED = "22023"               # by SignalWire
RETRY_AFTER = 30                # seconds, if nobody knows better


def headers(relays):
    """The page may talk only to its server and to SignalWire."""
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy":
            "default-src 'none'; script-src 'self'; style-src 'self'; "
            f"img-src data:; connect-src 'self' {relays}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Permissions-Policy": "microphone=(self), camera=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


async def execute(function, argument, refused=web.HTTPServiceUnavailable):
    """Returns the row of a function's result, or raises the response.

    If SignalWire refuses, it is our own fault, except for a refresh token.
    """
    try:
        async with await psycopg.AsyncConnection.connect() as connection:
            cursor = await connection.execute(
                f"SELECT * FROM {function}", [argument])
            names = [column.name for column in cursor.description]
            return dict(zip(names, await cursor.fetchone()))
    except psycopg.Error as error:
        logging.error("%s: SQLSTATE %s: %s", function, error.sqlstate, error)
        if error.sqlstate == TOO_MANY:
            raise too_many(RETRY_AFTER)
        if error.sqlstate == REFUSED:
            raise refused
        raise web.HTTPServiceUnavailable


def too_many(seconds):
    return web.HTTPTooManyRequests(headers={"Retry-After": str(seconds)})


async def start_call(request):
    row = await execute("start_call(%s::inet)", request.remote)
    retry_after = row.pop("retry_after")
    if retry_after is not None:
        raise too_many(retry_after)
    return web.json_response(row)


async def refresh_call(request):
    row = await execute("refresh_call(%s)", await request.text(),
                        refused=web.HTTPGone)
    if row["token"] is None:
        raise web.HTTPGone
    return web.json_response(row)


async def end_call(request):
    await execute("end_call(%s)", await request.text())
    return web.Response(status=204)


@web.middleware
async def refuse_strangers(request, handler):
    """No other site's page may ask for anything in a visitor's name."""
    if request.method != "GET" and request.headers.get(
            "Sec-Fetch-Site", "same-origin") != "same-origin":
        raise web.HTTPForbidden
    return await handler(request)


def file_route(path, file):
    async def show(request):
        return web.FileResponse(file)
    return web.get(path, show)


async def main(options):
    app = web.Application(middlewares=[refuse_strangers],
                          client_max_size=1024)
    app.add_routes([
        file_route("/", HERE / "index.html"),
        file_route("/page.css", HERE / "page.css"),
        file_route("/page.js", HERE / "page.js"),
        file_route("/signalwire.js", options.sdk),
        web.post("/call/start", start_call),
        web.post("/call/refresh", refresh_call),
        web.post("/call/end", end_call),
    ])
    extra = headers(options.relays)

    async def add_headers(request, response):
        response.headers.update(extra)

    app.on_response_prepare.append(add_headers)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}/",
          flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0,
                        help="default: any free port")
    parser.add_argument("--sdk", type=pathlib.Path,
                        default=HERE / "signalwire.js", metavar="FILE",
                        help="dist/index.umd.js of @signalwire/js 3.30"
                        " (default: signalwire.js beside this file)")
    parser.add_argument("--relays", default="wss://*.signalwire.com",
                        metavar="HOSTS", help="what the page may connect to"
                        " apart from this server (default: %(default)s)")
    asyncio.run(main(parser.parse_args()))
