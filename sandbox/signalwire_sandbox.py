#!/usr/bin/python3
"""A stand-in for SignalWire's guest token API.

It lets anyone develop and test against the API without an account, without
a network, and with every fault that a network can have.  It listens on a
loopback address only, checks requests as the real API does and issues real
JWE tokens, encrypted with a key that lives as long as the process.

The source is in five rooms, each knowing only those above it:

* Answer: an HTTP response, as data
* Project: judges requests and issues tokens; knows nothing of connections
* Step: the fault scripts, which a client selects by a path prefix
* Journal: what has arrived
* Sandbox: connections, and the misbehaviour on them

README.md beside this file has the grammar of the scripts and the control
endpoints.
"""

import argparse
import asyncio
import base64
import binascii
import contextlib
import functools
import ipaddress
import json
import logging
import os
import re
import secrets
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote_to_bytes

from aiohttp import web
from jwcrypto import jwe, jwk
from jwcrypto.common import JWException

GUESTS = "/api/fabric/guests/tokens"
REFRESH = "/api/fabric/subscribers/tokens/refresh"
CONTROL = "/_sandbox/"
SCRIPT = "/script/"

ERROR_DOCS = "https://signalwire.com/docs/apis/error-codes"
# A token's header names the host that the browser's SDK connects to: the usual
# one, or that of a cluster.
HOST = "puc.signalwire.com"
CLUSTERS = {"us-central": "us-central.signalwire.com"}
MAX_ADDRESSES = 10
TOKEN_LIFE = 2 * 60 * 60
REFRESH_GRACE = 5 * 60

# Real tokens have 600 to 900 characters.  Everything around the ciphertext
# takes about 125, and base64 makes four characters of three bytes: claims
# padded to 420 bytes give 680, and those with ten addresses stay below 900.
CLAIMS_SIZE = 420

LONG_POLL_SECONDS = 180

# Requests carry their script in the path, so a line may be long.
LINE_LIMIT = 1024 * 1024

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

MESSAGES = {
    "allowed_address_limit_exceeded":
        f"No more than {MAX_ADDRESSES} addresses are allowed",
    "invalid_parameter": "The parameter is invalid",
    "missing_required_parameter": "The parameter is required",
    "must_belong_to_project": "The addresses must belong to the project",
    "not_a_refresh_token": "The token is not a refresh token",
    "token_expired": "The token has expired",
    "token_invalid": "The token is invalid",
    "unrecognized_fabric_addresses": "The addresses do not exist",
    "unsupported_region": "The region is not supported",
}


# ---- Answer ---------------------------------------------------------------

def compact(value):
    return json.dumps(value, separators=(",", ":"))


def reason(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


@dataclass
class Answer:
    """A response; headers are (name, value) pairs of bytes."""

    status: int
    body: bytes
    headers: list = field(default_factory=list)

    def __post_init__(self):
        self.headers = [(b"Date", formatdate(usegmt=True).encode()),
                        (b"Content-Type", b"application/json; charset=utf-8"),
                        *self.headers]

    @classmethod
    def json(cls, status, value):
        return cls(status, compact(value).encode())

    @classmethod
    def error(cls, status, code="must_belong_to_project"):
        """Returns what the API documents for a status."""
        if status == 422:
            return cls.json(422, {"errors": [
                problem(code, "refresh_token" if "token" in code
                        else "allowed_addresses")]})
        return cls.json(status, {"error": reason(status)})

    def replace(self, name, value=None):
        """Drops the headers of that name, then adds one unless None."""
        self.headers = [pair for pair in self.headers
                        if pair[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def keeps_connection(self):
        return (b"Connection", b"close") not in self.headers

    def head(self, version="1.1"):
        status_line = f"HTTP/{version} {self.status} {reason(self.status)}"
        return b"\r\n".join([
            status_line.encode(),
            *(name + b": " + value for name, value in self.headers),
            b"", b""])


# ---- Project --------------------------------------------------------------

class Refused(Exception):
    """The request is wrong; args are the entries of the 422 answer."""


def problem(code, attribute, message=None):
    return {"type": "validation_error", "code": code,
            "message": message or MESSAGES.get(code, code),
            "attribute": attribute, "url": ERROR_DOCS}


def invalid(attribute, message=None):
    return problem("invalid_parameter", attribute, message)


def load_object(body):
    """Parses a JSON object more strictly than Python would: no NaN."""
    def refuse_constant(name):
        raise ValueError(name)

    try:
        value = json.loads(body.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused(invalid(None, "The body must be a JSON object"))
    return value


class Project:
    """A SignalWire project: its credentials, its addresses, its tokens."""

    def __init__(self, project_id, api_token, addresses=(), foreign=(),
                 host=HOST):
        self.project_id = project_id
        self.api_token = api_token
        self.addresses = set(addresses)
        self.foreign = set(foreign)
        self.host = host
        self.key = jwk.JWK.generate(kty="oct", size=256)

    def authorizes(self, authorization):
        return split_basic(authorization) == (self.project_id, self.api_token)

    def answer(self, method, path, headers, body):
        """Answers as the API does, its checks in the API's order."""
        endpoint = {GUESTS: self.issue, REFRESH: self.refresh}.get(path)
        if method != "POST" or endpoint is None:
            return Answer.error(404)
        if not self.authorizes(headers.get("Authorization", "")):
            return Answer.error(401)
        content_type = headers.get("Content-Type", "").partition(";")[0]
        try:
            if content_type.strip().lower() != "application/json":
                raise Refused(invalid(
                    None, "The content type must be application/json"))
            return Answer.json(201, endpoint(load_object(body)))
        except Refused as refusal:
            return Answer.json(422, {"errors": list(refusal.args)})

    def issue(self, fields):
        errors = list(self.problems(fields))
        if errors:
            raise Refused(*errors)
        return self.mint(fields["allowed_addresses"],
                         fields.get("expire_at"), fields.get("region"),
                         CLUSTERS.get(fields.get("ch")))

    def problems(self, fields):
        """Yields one entry for each member that the API would refuse."""
        for name in fields:
            if name not in ("allowed_addresses", "expire_at", "region", "ch"):
                yield invalid(name, "The parameter is unknown")

        addresses = fields.get("allowed_addresses", [])
        if not isinstance(addresses, list):
            yield invalid("allowed_addresses")
        elif not addresses:
            yield problem("missing_required_parameter", "allowed_addresses")
        elif len(addresses) > MAX_ADDRESSES:
            yield problem("allowed_address_limit_exceeded",
                          "allowed_addresses")
        elif not all(isinstance(address, str) and UUID.fullmatch(address)
                     for address in addresses):
            yield invalid("allowed_addresses", "The addresses must be UUIDs")
        elif not all(map(self.owns, addresses)):
            yield problem("must_belong_to_project", "allowed_addresses")

        if "expire_at" in fields:
            expire_at = fields["expire_at"]
            # type(), not isinstance(): to Python, true is an integer.
            if type(expire_at) is not int:
                yield invalid("expire_at")
            elif expire_at <= time.time():
                yield invalid("expire_at", "The time must be in the future")

        for name in ("region", "ch"):
            if name not in fields:
                continue
            if not isinstance(fields[name], str):
                yield invalid(name)
            elif fields[name] not in CLUSTERS:
                yield problem("unsupported_region", name)

    def owns(self, address):
        address = address.lower()
        return (address not in self.foreign
                and (not self.addresses or address in self.addresses))

    def refresh(self, fields):
        errors = [invalid(name, "The parameter is unknown")
                  for name in fields if name != "refresh_token"]
        if "refresh_token" not in fields:
            errors.append(
                problem("missing_required_parameter", "refresh_token"))
        elif not isinstance(fields["refresh_token"], str):
            errors.append(invalid("refresh_token"))
        if errors:
            raise Refused(*errors)
        header, claims = self.decrypt(fields["refresh_token"])
        if header.get("typ") != "Refresh":
            raise Refused(problem("not_a_refresh_token", "refresh_token"))
        if claims.get("exp", 0) <= time.time():
            raise Refused(problem("token_expired", "refresh_token"))
        return self.mint(claims.get("addresses", []), None,
                         claims.get("region"), claims.get("ch"))

    def mint(self, addresses, expire_at=None, region=None, host=None):
        now = int(time.time())
        exp = expire_at or now + TOKEN_LIFE
        host = host or self.host

        def encrypt(typ, exp):
            return self.encrypt({"ch": host, "typ": typ}, {
                "addresses": addresses, "exp": exp,
                "region": region or [*CLUSTERS][0], "ch": host, "iat": now,
                "jti": secrets.token_urlsafe(12),
                "project_id": self.project_id})

        return {"token": encrypt("SAT", exp),
                "refresh_token": encrypt("Refresh", exp + REFRESH_GRACE)}

    def encrypt(self, header, claims):
        header = {"alg": "dir", "enc": "A256GCM", **header}
        missing = CLAIMS_SIZE - len(compact(claims)) - len(',"padding":""')
        if missing > 0:
            claims = {**claims, "padding": "." * missing}
        token = jwe.JWE(compact(claims).encode(), protected=compact(header),
                        recipient=self.key)
        return token.serialize(compact=True)

    def decrypt(self, text):
        try:
            token = jwe.JWE()
            token.deserialize(text, self.key)
            return token.jose_header, load_object(token.payload)
        except (JWException, ValueError, TypeError, AttributeError):
            raise Refused(problem("token_invalid", "refresh_token"))


def split_basic(authorization):
    """Returns user name and password, both empty if there are none."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
        user, _, password = decoded.decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


# ---- Step -----------------------------------------------------------------

class ScriptError(Exception):
    """The script in the path is wrong; the test that wrote it is told."""


ANSWER_PARAMETERS = {"body", "close", "code", "delay", "header", "id",
                     "location", "refresh", "retry-after", "size", "token",
                     "type"}
# What an action takes besides "delay" and "id".
ACTIONS = {
    "bigheader": ANSWER_PARAMETERS | {"status"},
    "close": set(),
    "cut": ANSWER_PARAMETERS | {"status"},
    "cutheaders": ANSWER_PARAMETERS | {"status"},
    "drip": ANSWER_PARAMETERS | {"status", "ms"},
    "early": ANSWER_PARAMETERS | {"status"},
    "echo": ANSWER_PARAMETERS | {"status", "shape", "raw"},
    "endless": set(),
    "endlessheaders": set(),
    "garbage": {"body"},
    "hang": set(),
    "hold": ANSWER_PARAMETERS | {"status", "n"},
    "http10": ANSWER_PARAMETERS | {"status"},
    "reset": set(),
    "then-close": ANSWER_PARAMETERS | {"status"},
}
NUMBERS = {"delay", "ms", "n", "size", "status"}


@dataclass(frozen=True)
class Step:
    """One step of a script: "503,retry-after=1" for example."""

    text: str
    action: str
    values: dict
    headers: tuple

    @classmethod
    def parse(cls, text):
        action, *parameters = text.split(",")
        if re.fullmatch(r"[2-9]\d\d", action):
            allowed = ANSWER_PARAMETERS
        elif action in ACTIONS:
            allowed = ACTIONS[action] | {"delay", "id"}
        else:
            raise ScriptError(f"unknown action {action!r}")
        values, headers = {}, []
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name not in allowed:
                raise ScriptError(f"{action!r} takes no parameter {name!r}")
            value = unquote_to_bytes(value)
            if name == "header":
                headers.append(value)
            elif name not in NUMBERS:
                values[name] = value
            elif value.isdigit():
                values[name] = int(value)
            else:
                raise ScriptError(f"parameter {name!r} is no number")
        return cls(text, action, values, tuple(headers))

    def text_of(self, name, default=""):
        return self.values.get(name, default.encode()).decode(errors="replace")


@functools.lru_cache(maxsize=1000)
def parse_script(script):
    return [Step.parse(text) for text in script.split("-then-")]


# ---- Journal --------------------------------------------------------------

class Journal:
    """What has arrived since the last DELETE, and how far scripts are.

    Clearing means starting a new one.  Requests that still hang belong to
    the old journal, so they cannot disturb the counters of the next test.
    """

    def __init__(self, file=None):
        self.file = file
        self.entries = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.positions = {}
        self.held = {}

    def next_step(self, script):
        steps = parse_script(script)
        position = self.positions.get(script, 0)
        self.positions[script] = position + 1
        return steps[min(position, len(steps) - 1)]

    def arrive(self, **entry):
        entry = {"seq": len(self.entries) + 1, "time": time.time(), **entry}
        self.entries.append(entry)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return entry

    def settle(self, entry, status):
        """Ends a request; only the first call for an entry counts.

        Called before the first byte goes out, so that a client that has its
        answer finds it in the journal, too.
        """
        if "status" in entry:
            return
        entry["status"] = status
        self.in_flight -= 1
        if self.file:
            print(json.dumps(entry), file=self.file, flush=True)

    def report(self):
        return {"requests": [{"status": None, **entry}
                             for entry in self.entries],
                "max_in_flight": self.max_in_flight,
                "connections": len({entry["connection"]
                                    for entry in self.entries})}


# ---- Sandbox --------------------------------------------------------------

class Sent(web.StreamResponse):
    """Tells aiohttp that the answer has gone out, or that none will."""

    def __init__(self, keep_alive):
        super().__init__()
        self._stay_open = keep_alive

    async def prepare(self, request):
        return None

    async def write_eof(self, data=b""):
        pass

    @property
    def keep_alive(self):
        return self._stay_open


@dataclass
class Peer:
    """A TCP connection, and the task that answers its last request."""

    number: int
    task: asyncio.Task = None


@dataclass
class Exchange:
    """A request that has arrived, and the way back to its client."""

    request: web.BaseRequest
    path: str
    body: bytes
    script: str = None
    settle: callable = lambda status: None

    async def write(self, data):
        await self.request.writer.write(data)

    async def send(self, answer):
        """Sends a faultless answer; returns whether to keep the connection."""
        self.settle(answer.status)
        await self.write(answer.head() + answer.body)
        return answer.keeps_connection()


# What cannot be an Answer, because it has no end: its start, and what repeats.
ENDLESS = {
    "endless": (
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"4000\r\n%b\r\n" % (b" " * 0x4000)),
    "endlessheaders": (
        b"HTTP/1.1 201 Created\r\n",
        b"X-Filler: %b\r\n" % (b"x" * 1000)),
}
GARBAGE = b"SSH-2.0-sandbox\r\n\x00\x01\xfe\xff\r\n"
EARLY_HINTS = (b"HTTP/1.1 103 Early Hints\r\n"
               b"Link: </style.css>; rel=preload\r\n\r\n")


class Sandbox(web.Server):
    """The server.  It writes its answers itself, byte by byte if need be:
    a library that helps to speak HTTP cannot speak it badly on purpose."""

    def __init__(self, project, latency_ms=0, journal_file=None):
        # Idle connections stay open, at least for a year: a test decides when
        # one goes stale.  (None is not accepted by all versions of aiohttp.)
        super().__init__(self.handle, keepalive_timeout=31536000,
                         access_log=None, auto_decompress=False,
                         max_line_size=LINE_LIMIT,
                         max_field_size=LINE_LIMIT)
        self.project = project
        self.latency_ms = latency_ms
        self.journal = Journal(journal_file)
        self.arrival = asyncio.Event()
        self.peers = {}
        self.peer_count = 0

    def connection_made(self, handler, transport):
        super().connection_made(handler, transport)
        self.peer_count += 1
        self.peers[handler] = Peer(self.peer_count)

    def connection_lost(self, handler, exc=None):
        super().connection_lost(handler, exc)
        # aiohttp lets a handler go on when its client leaves, but here it may
        # be one that hangs until then.
        peer = self.peers.pop(handler, None)
        if peer and peer.task:
            peer.task.cancel()

    async def handle(self, request):
        peer = self.peers.get(request.protocol)
        if peer is None:
            return Sent(False)
        peer.task = asyncio.current_task()
        # A request to a proxy names its server in front of the path.
        target = re.sub(r"^https?://[^/]*", "", request.raw_path)
        path, _, query = target.partition("?")
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange = Exchange(request, path, await request.content.read())
            if path.startswith(CONTROL):
                answer = await self.control(exchange, parse_qs(query))
                return Sent(await exchange.send(
                    self.finish(exchange, answer)))
            return Sent(await self.serve(exchange, peer.number))
        except (ConnectionError, web.RequestPayloadError):
            return Sent(False)

    async def serve(self, exchange, connection):
        """Journals a request and answers it."""
        request, journal = exchange.request, self.journal
        step = mistake = None
        if exchange.path.startswith(SCRIPT):
            script, slash, rest = exchange.path[len(SCRIPT):].partition("/")
            exchange.script, exchange.path = script, slash + rest
            try:
                step = journal.next_step(script)
            except ScriptError as error:
                mistake = f"sandbox script: {error}"

        headers = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        entry = journal.arrive(
            method=request.method, path=request.raw_path,
            script=exchange.script, step=step and step.text,
            headers={name: ", ".join(values)
                     for name, values in headers.items()},
            body=exchange.body.decode(errors="backslashreplace"),
            authorized=self.project.authorizes(
                request.headers.get("Authorization", "")),
            connection=connection)
        exchange.settle = functools.partial(journal.settle, entry)
        # Whoever waits for an arrival looks at the journal again.
        self.arrival.set()
        self.arrival = asyncio.Event()
        try:
            await asyncio.sleep(self.latency_ms / 1000)
            if step:
                await asyncio.sleep(step.values.get("delay", 0) / 1000)
                return await self.play(exchange, step)
            answer = (Answer.json(400, {"error": mistake}) if mistake
                      else self.real_answer(exchange))
            return await exchange.send(self.finish(exchange, answer))
        finally:
            exchange.settle(None)

    async def control(self, exchange, query):
        """Answers the endpoints that are for tests, not for clients."""
        method, body = exchange.request.method, exchange.body
        name = exchange.path[len(CONTROL):]
        try:
            if (method, name) == ("GET", "journal"):
                await self.wait_for_arrivals(int(query.get("wait", ["0"])[0]))
                return Answer.json(200, self.journal.report())
            if (method, name) == ("DELETE", "journal"):
                self.journal = Journal(self.journal.file)
                return Answer.json(200, {})
            if (method, name) == ("POST", "latency"):
                self.latency_ms = max(0, int(load_object(body)["ms"]))
                return Answer.json(200, {"ms": self.latency_ms})
            if (method, name) == ("POST", "decrypt"):
                header, claims = self.project.decrypt(
                    load_object(body)["token"])
                return Answer.json(200, {"header": header, "claims": claims})
            if (method, name) == ("POST", "encrypt"):
                fields = load_object(body)
                return Answer.json(200, {"token": self.project.encrypt(
                    fields.get("header", {}), fields.get("claims", {}))})
        except Refused as refusal:
            return Answer.json(422, {"errors": list(refusal.args)})
        except (KeyError, ValueError, TypeError, JWException) as error:
            return Answer.json(422, {"errors": [invalid(None, repr(error))]})
        return Answer.error(404)

    async def wait_for_arrivals(self, count):
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(LONG_POLL_SECONDS):
                while len(self.journal.entries) < count:
                    await self.arrival.wait()

    # -- what to answer --

    def real_answer(self, exchange):
        request = exchange.request
        return self.project.answer(request.method, exchange.path,
                                   request.headers, exchange.body)

    def scripted_answer(self, exchange, step):
        """Makes the answer that a step asks for, faultless so far.

        Only a 201 without a body of its own is judged by the project.
        """
        values = step.values
        status = values.get("status", 201)
        if step.action.isdigit():
            status = int(step.action)
        if step.action == "echo":
            answer = self.echo(exchange, step)
        elif "body" in values:
            answer = Answer(status, values["body"])
        elif "token" in values or "refresh" in values:
            pair = self.project.mint([])
            answer = Answer.json(status, {
                "token": step.text_of("token", pair["token"]),
                "refresh_token": step.text_of(
                    "refresh", pair["refresh_token"])})
        elif status == 201:
            answer = self.real_answer(exchange)
        elif "size" in values:
            text = b"The quick brown fox jumps over the lazy dog. "
            repeats = values["size"] // len(text) + 1
            answer = Answer(status, (text * repeats)[:values["size"]])
        else:
            answer = Answer.error(status, step.text_of(
                "code", "must_belong_to_project"))
        if step.action != "bigheader":
            answer.body = answer.body.ljust(values.get("size", 0))

        if 300 <= status < 400:
            answer.replace(b"Location", values.get("location",
                                                   GUESTS.encode()))
        if "retry-after" in values:
            answer.replace(b"Retry-After", values["retry-after"])
        if "type" in values:
            answer.replace(b"Content-Type", values["type"] or None)
        self.finish(exchange, answer)
        if values.get("close") == b"1":
            answer.replace(b"Connection", b"close")
        # First remove all defaults, then add the step's own: a name may
        # repeat.
        own = [header.partition(b":") for header in step.headers]
        for name, _, _ in own:
            answer.replace(name)
        answer.headers += [(name, value.lstrip())
                           for name, colon, value in own if colon]
        return answer

    def finish(self, exchange, answer):
        """Adds the headers that depend on the request and on the body."""
        if answer.status in (204, 304):
            answer.body = b""
        else:
            answer.replace(b"Content-Length", b"%d" % len(answer.body))
        if exchange.request.method == "HEAD":
            answer.body = b""
        if not exchange.request.keep_alive:
            answer.replace(b"Connection", b"close")
        return answer

    def echo(self, exchange, step):
        """Sends the secrets back, as careless servers do."""
        authorization = exchange.request.headers.get("Authorization", "")
        secret = " ".join([authorization, split_basic(authorization)[1],
                           exchange.body.decode(errors="replace")])
        if step.text_of("shape") == "errors":
            return Answer.json(step.values.get("status", 422), {"errors": [
                problem("invalid_parameter", "allowed_addresses", secret)]})
        status = step.values.get("status", 500)
        if step.text_of("raw") == "1":
            answer = Answer(status, secret.encode())
            answer.replace(b"Content-Type", b"text/plain; charset=utf-8")
            return answer
        return Answer.json(status, {"error": secret})

    # -- how to answer --

    async def play(self, exchange, step):
        """Plays a step; returns whether to keep the connection.

        Where an answer is not kept whole, closing is up to the caller: it
        sends first what has been written.
        """
        action = step.action
        if action == "hang":
            await asyncio.Event().wait()
        if action == "reset":
            reset(exchange.request.transport)
        if action in ("close", "reset"):
            return False
        if action == "garbage":
            await exchange.write(step.values.get("body", GARBAGE))
            return False
        if action in ENDLESS:
            await self.send_endless(exchange, *ENDLESS[action])
        if action == "hold":
            await self.hold(exchange.script, step)

        answer = self.scripted_answer(exchange, step)
        if action == "early":
            await exchange.write(EARLY_HINTS)
        if action == "bigheader":
            size = step.values.get("size", 200000) - len("X-Filler: ")
            answer.headers.append((b"X-Filler", b"x" * size))
        if action in ("cut", "cutheaders", "drip", "http10"):
            exchange.settle(answer.status)
            return await getattr(self, "send_" + action)(
                exchange, answer, step.values.get("ms", 10))
        return await exchange.send(answer) and action != "then-close"

    async def hold(self, script, step):
        """Waits until n requests of the script have come this far."""
        held = self.journal.held
        count, released = held.get((script, step.text), (0, asyncio.Event()))
        held[script, step.text] = count + 1, released
        if count + 1 >= step.values.get("n", 2):
            released.set()
        await released.wait()

    async def send_endless(self, exchange, start, more):
        exchange.settle(201)
        await exchange.write(start)
        while True:
            await exchange.write(more)
            await asyncio.sleep(0)

    async def send_cut(self, exchange, answer, _):
        half = answer.body[:len(answer.body) // 2]
        await exchange.write(answer.head() + half)
        return False

    async def send_cutheaders(self, exchange, answer, _):
        head = answer.head()
        await exchange.write(head[:len(head) // 2])
        return False

    async def send_drip(self, exchange, answer, ms):
        for byte in answer.head() + answer.body:
            await exchange.write(bytes([byte]))
            await asyncio.sleep(ms / 1000)
        return answer.keeps_connection()

    async def send_http10(self, exchange, answer, _):
        answer.replace(b"Content-Length")
        answer.replace(b"Connection", b"close")
        await exchange.write(answer.head("1.0") + answer.body)
        return False


def reset(transport):
    """Drops a connection by RST: that is what a linger time of 0 means."""
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# ---- The program ----------------------------------------------------------

def loopback(text):
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(text).is_loopback:
            return text
    raise argparse.ArgumentTypeError(f"{text!r} is no loopback IP address")


def uuid(text):
    if not UUID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no UUID")
    return text.lower()


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        description="A stand-in for SignalWire's guest token API, for"
        " development and tests.  README.md beside this file tells how to"
        " script faults and how to read what has arrived.")
    add = parser.add_argument
    add("--host", type=loopback, default="127.0.0.1",
        help="loopback address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="default: any free port")
    add("--project-id", default="00000000-0000-4000-8000-000000000000",
        help="the user name that clients must send (default: %(default)s)")
    add("--api-token", default="PTsandbox",
        help="the password that clients must send (default: %(default)s)")
    add("--address", type=uuid, action="append", default=[], metavar="UUID",
        help="an address of the project, the only ones if given; repeatable")
    add("--foreign-address", type=uuid, action="append", default=[],
        metavar="UUID", help="an address of someone else; repeatable")
    add("--ch", default=HOST, metavar="HOST",
        help="the host in a token's header (default: %(default)s)")
    add("--tls-cert", metavar="FILE", help="PEM certificate: speak HTTPS")
    add("--tls-key", metavar="FILE", help="PEM key of that certificate")
    add("--latency", type=int, default=0, metavar="MS",
        help="wait so long before each answer of the API")
    add("--journal", type=argparse.FileType("a"), metavar="FILE",
        help="append a line of JSON for each request that has ended")
    add("--stop-on-eof", action="store_true",
        help="stop when standard input ends, as it does when its owner dies")
    add("--run", nargs=argparse.REMAINDER, metavar="COMMAND",
        help="run a command, all that follows, with SANDBOX_URL,"
        " SANDBOX_PORT, SANDBOX_PROJECT_ID and SANDBOX_API_TOKEN in its"
        " environment; end with it and with its exit status")
    # Split by hand: argparse would take the command's own "--" for its own.
    at = arguments.index("--run") if "--run" in arguments else None
    options = parser.parse_args(arguments[:at])
    if at is not None:
        options.run = arguments[at + 1:]
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    if options.run is not None and not options.run:
        parser.error("--run needs a command")
    if options.run and options.stop_on_eof:
        parser.error("--run leaves standard input to its command,"
                     " so --stop-on-eof cannot watch it")
    return options


async def main(options):
    tls = None
    if options.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    project = Project(options.project_id, options.api_token,
                      options.address, options.foreign_address, options.ch)
    sandbox = Sandbox(project, options.latency, options.journal)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(sandbox, options.host, options.port,
                                        ssl=tls, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        if options.run:
            return await run_command(options.run, {
                "SANDBOX_URL": url, "SANDBOX_PORT": str(port),
                "SANDBOX_PROJECT_ID": options.project_id,
                "SANDBOX_API_TOKEN": options.api_token})
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if options.stop_on_eof:
            threading.Thread(target=wait_for_eof, daemon=True, args=(
                functools.partial(loop.call_soon_threadsafe, stop.set),)
            ).start()
        print(f"listening on {url}", flush=True)
        await stop.wait()
        return 0
    finally:
        listener.close()
        # Requests may hang forever.  To aiohttp, 0 means to wait for them.
        await sandbox.shutdown(0.01)


async def run_command(command, environment):
    """Runs a command to its end; returns its status as a shell has it."""
    # A test compares the command's output: nothing may be added to it.
    logging.disable()
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment})
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def forward(number):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, forward, number)
    status = await child.wait()
    return status if status >= 0 else 128 - status


def wait_for_eof(stop):
    # A thread, because epoll refuses a standard input that is a file.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):
        stop()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse_options(sys.argv[1:]))))
    except OSError as error:
        sys.exit(f"signalwire_sandbox: {error}")
