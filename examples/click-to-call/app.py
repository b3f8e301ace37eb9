#!/usr/bin/python3
"""Click to call: gives a page, and guest tokens that PostgreSQL issued.

It knows no credentials of SignalWire's, and is given no refresh token: it
logs in as a role that may execute call_token() and nothing else (schema.sql).
PGHOST, PGDATABASE, PGUSER and the like tell where.

What goes wrong is told to the log.  A browser is told a status.
"""

import argparse
import asyncio
import logging
import pathlib

import psycopg
from aiohttp import web

PAGE = pathlib.Path(__file__).with_name("index.html")
TOO_MANY = "53400"              # too many for this visitor, or for SignalWire
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; "
                               "img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def show_page(request):
    return web.FileResponse(PAGE)


async def issue_token(request):
    # Nobody else's page asks for tokens in a visitor's name.
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise web.HTTPForbidden
    try:
        async with await psycopg.AsyncConnection.connect() as connection:
            cursor = await connection.execute(
                "SELECT token, expires_in FROM call_token(%s::inet)",
                [request.remote])
            token, expires_in = await cursor.fetchone()
    except psycopg.Error as error:
        logging.error("no token: SQLSTATE %s: %s", error.sqlstate, error)
        if error.sqlstate == TOO_MANY:
            raise web.HTTPTooManyRequests
        raise web.HTTPServiceUnavailable
    return web.json_response({"token": token, "expires_in": expires_in})


async def add_headers(request, response):
    response.headers.update(HEADERS)


async def main(port):
    app = web.Application()
    app.add_routes([web.get("/", show_page), web.post("/token", issue_token)])
    app.on_response_prepare.append(add_headers)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}/",
          flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0,
                        help="default: any free port")
    asyncio.run(main(parser.parse_args().port))
