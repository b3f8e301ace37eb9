#!/usr/bin/python3
"""A stand-in for the host that SignalWire's browser SDK connects to.

A guest token says in its header which host that is.  This program is that
host, on a loopback address: it judges tokens with the help of the sandbox that
issued them, and connects calls to whoever has opened its page /desk.  It
speaks as much of the SDK's protocol as one call needs, which is JSON-RPC over
a WebSocket with Verto inside, and it knows nothing of media: the two browsers
send each other their sound.

README.md beside this file has the control endpoints.
"""

import argparse
import asyncio
import contextlib
import pathlib
import secrets
import signal
import ssl
import sys
import time

import aiohttp
from aiohttp import web

from signalwire_sandbox import HOST, loopback

DESK = pathlib.Path(__file__).with_name("desk.html")
NODE = "the-only-node"
LONG_POLL_SECONDS = 180
UNAUTHORIZED = {"code": -32002, "message": "The token is not valid here"}


class Refused(Exception):
    """A request is answered with an error, which is the argument."""


class Journal:
    """What browsers have asked for; whoever waits is told of arrivals."""

    def __init__(self):
        self.entries = []
        self.arrival = asyncio.Event()

    def note(self, **entry):
        self.entries.append(entry)
        self.arrival.set()
        self.arrival = asyncio.Event()

    def select(self, method):
        return [entry for entry in self.entries
                if method in (None, entry["method"])]

    async def wait(self, method, count):
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(LONG_POLL_SECONDS):
                while len(self.select(method)) < count:
                    await self.arrival.wait()
        return self.select(method)


class Visitor:
    """A browser's session, from its WebSocket's beginning to its end."""

    def __init__(self, relay, socket, host):
        self.relay = relay
        self.socket = socket
        self.host = host
        self.claims = None
        self.call = None        # its ID: one at a time is enough here

    async def listen(self):
        try:
            async for message in self.socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    request = message.json()
                    if "method" in request:
                        await self.serve(request)
        finally:
            self.relay.journal.note(host=self.host, method="(closed)",
                                    token=None)
            if self.call:
                await self.relay.end(self.call)

    async def serve(self, request):
        method, params = request["method"], request["params"]
        handler = {"signalwire.connect": self.connect,
                   "signalwire.reauthenticate": self.reauthenticate,
                   "webrtc.verto": self.verto}.get(method)
        if method == "webrtc.verto":
            # The SDK's answers to our own messages come this way, too.
            method = params["message"].get("method", "(answer)")
        self.relay.journal.note(
            host=self.host, method=method,
            token=params.get("authentication", {}).get("jwt_token"))
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer["result"] = await handler(params) if handler else {}
        except Refused as refusal:
            answer["error"], = refusal.args
        await self.socket.send_json(answer)

    async def connect(self, params):
        authorization = await self.authorize(params)
        return {"identity": secrets.token_hex(8),
                "protocol": f"signalwire_{authorization['jti']}_visitor",
                "authorization": authorization, "ice_servers": []}

    async def reauthenticate(self, params):
        return {"authorization": await self.authorize(params)}

    async def authorize(self, params):
        """Takes a guest's token that is valid and names this host."""
        token = params["authentication"]["jwt_token"]
        header, claims = await self.relay.decrypt(token)
        if (header["typ"] != "SAT" or claims["exp"] <= time.time()
                or header["ch"] not in (self.host, f"ws://{self.host}")):
            raise Refused(UNAUTHORIZED)
        self.claims = claims
        return {"jti": claims["jti"], "project_id": claims["project_id"],
                "fabric_subscriber": {"version": 1,
                                      "expires_at": claims["exp"],
                                      "subscriber_id": "guest",
                                      "project_id": claims["project_id"]}}

    async def verto(self, params):
        if not self.claims:
            raise Refused(UNAUTHORIZED)
        message = params["message"]
        method = message.get("method")
        result = {}
        if method == "verto.invite":
            dialog = message["params"]["dialogParams"]
            self.call = dialog["callID"]
            result = {"callID": self.call, "message": "CALL CREATED"}
            await self.relay.ring(self, dialog["destination_number"],
                                  message["params"]["sdp"])
        elif method == "verto.bye" and self.call:
            await self.relay.end(self.call)
            self.call = None
        return {"code": "200", "node_id": NODE, "result": {
            "jsonrpc": "2.0", "id": message.get("id"), "result": result}}

    async def send_event(self, name, params):
        with contextlib.suppress(ConnectionError):
            await self.socket.send_json({
                "jsonrpc": "2.0", "id": secrets.token_hex(8),
                "method": "signalwire.event", "params": {
                    "event_type": name, "timestamp": time.time(),
                    "node_id": NODE, "params": params}})

    async def send_verto(self, method, **params):
        await self.send_event("webrtc.message", {
            "jsonrpc": "2.0", "id": secrets.token_hex(8), "method": method,
            "params": {"callID": self.call, **params}})

    async def answered(self, sdp):
        await self.send_verto("verto.answer", sdp=sdp)
        ids = {"call_id": self.call, "member_id": "visitor",
               "room_id": "room", "room_session_id": "session"}
        await self.send_event("call.joined", {
            **ids, "node_id": NODE, "origin_call_id": self.call,
            "capabilities": ["self"], "room_session": {
                "id": "session", "room_id": "room",
                "room_session_id": "session", "members": [
                    {**ids, "node_id": NODE, "type": "member"}]}})

    async def bye(self, cause):
        """The other side has hung up, declined, or is not there."""
        name, code = {"declined": ("USER_BUSY", "17"),
                      "absent": ("NO_ANSWER", "19")}.get(
                          cause, ("NORMAL_CLEARING", "16"))
        await self.send_verto("verto.bye", cause=name, causeCode=code)
        self.call = None


class Relay:
    """All sessions and calls, and the desk, if somebody has opened it."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.journal = Journal()
        self.ringing = {}       # the visitor of each call
        self.desk = None
        self.http = None

    async def decrypt(self, token):
        async with self.http.post(self.sandbox + "/_sandbox/decrypt",
                                  json={"token": token}) as response:
            if response.status != 200:
                raise Refused(UNAUTHORIZED)
            answer = await response.json()
            return answer["header"], answer["claims"]

    async def serve_visitor(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await Visitor(self, socket, request.host).listen()
        return socket

    async def ring(self, visitor, destination, sdp):
        self.ringing[visitor.call] = visitor
        if self.desk is None:
            await self.hang_up(visitor.call, "absent")
        else:
            await self.desk.send_json({"type": "call", "call": visitor.call,
                                       "to": destination, "sdp": sdp})

    async def end(self, call):
        """The visitor has hung up, or is gone."""
        if self.ringing.pop(call, None) and self.desk is not None:
            with contextlib.suppress(ConnectionError):
                await self.desk.send_json({"type": "bye", "call": call})

    async def hang_up(self, call, cause=None):
        """The desk does."""
        visitor = self.ringing.pop(call, None)
        if visitor:
            await visitor.bye(cause)

    async def serve_desk(self, request):
        socket = self.desk = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            async for message in socket:
                told = message.json()
                if told["type"] == "bye":
                    await self.hang_up(told["call"], told.get("cause"))
                elif told["call"] in self.ringing:
                    await self.ringing[told["call"]].answered(told["sdp"])
        finally:
            if self.desk is socket:
                self.desk = None
                for call in list(self.ringing):
                    await self.hang_up(call)
        return socket

    async def show_desk(self, request):
        return web.FileResponse(DESK)

    async def show_journal(self, request):
        return web.json_response(await self.journal.wait(
            request.query.get("method"), int(request.query.get("wait", 0))))

    async def clear_journal(self, request):
        self.journal.entries.clear()
        return web.json_response([])


def parse_options():
    parser = argparse.ArgumentParser(
        description="A stand-in for the host that SignalWire's browser SDK"
        " connects to.  Open its page /desk to take calls.")
    add = parser.add_argument
    add("--host", type=loopback, default="127.0.0.1",
        help="loopback address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="default: any free port")
    add("--sandbox", required=True, metavar="URL",
        help="of the sandbox whose tokens are good here")
    add("--tls-cert", metavar="FILE",
        help=f"PEM certificate, of {HOST} for example: speak TLS")
    add("--tls-key", metavar="FILE", help="PEM key of that certificate")
    options = parser.parse_args()
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    return options


async def main(options):
    tls = None
    if options.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    relay = Relay(options.sandbox)
    app = web.Application()
    app.add_routes([web.get("/", relay.serve_visitor),
                    web.get("/desk", relay.show_desk),
                    web.get("/desk/socket", relay.serve_desk),
                    web.get("/_relay/journal", relay.show_journal),
                    web.delete("/_relay/journal", relay.clear_journal)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession() as relay.http:
        await web.TCPSite(runner, options.host, options.port,
                          ssl_context=tls).start()
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"listening on {'https' if tls else 'http'}://{host}:"
              f"{runner.addresses[0][1]}", flush=True)
        # Sockets may stay open forever: nobody waits for their end.
        await stop.wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(parse_options()))
    except OSError as error:
        sys.exit(f"signalwire_relay: {error}")
