#!/usr/bin/python3
"""Makes calls in headless Chromium, and checks what comes of them.

`run --test` starts this, with the page's URL and the rest in the environment.
Chromium has the page in one tab and the desk, where calls arrive, in another.
Its microphone is a fake one that beeps.  It is controlled through its DevTools
protocol, which also shows everything that it is sent: the headers and bodies
of all responses, which must not contain a secret.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import pathlib
import sys
import tempfile
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import aiohttp
import psycopg

PAGE, SANDBOX, RELAY, HOST, LOG = (
    os.environ[name] for name in ("PAGE", "SANDBOX", "RELAY", "HOST", "LOG"))
ADDRESS, CALLED = os.environ["ADDRESS"], os.environ["CALLED"]
CREDENTIALS = os.environ["PROJECT_ID"], os.environ["API_TOKEN"]
SECONDS = 60                    # for what takes a fraction of one

# Without its sandbox, which not every container allows: the page is our own.
# Only the relay's name is found, on this machine: Chromium talks to nobody
# but us.
CHROMIUM = [
    "chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
    "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    f"--ignore-certificate-errors-spki-list={os.environ['KEY_HASH']}",
    f"--host-resolver-rules=MAP {HOST} {urlsplit(RELAY).netloc},"
    " MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0"]

SCRIPT = pathlib.Path(__file__).with_name("test.js").read_text()
BUSY = "We are busy. You can try again in"

passed, failed = [], []


def check(name, got, expected=True):
    good = got == expected
    (passed if good else failed).append(name)
    print(f"{'ok' if good else 'not ok'} - {name}", flush=True)
    if not good:
        print(f"#      got: {got!r}\n# expected: {expected!r}", flush=True)


class Tab:
    """One of Chromium's tabs."""

    def __init__(self, socket):
        self.socket = socket
        self.numbers = itertools.count(1)
        self.answers = {}
        self.tasks = set()

    async def listen(self):
        async for message in self.socket:
            message = message.json()
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            else:
                self.notice(message["method"], message["params"])

    def notice(self, event, params):
        pass

    async def do(self, method, **parameters):
        number = next(self.numbers)
        self.answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json(
            {"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self.answers[number], SECONDS)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def evaluate(self, script):
        answer = await self.do("Runtime.evaluate", expression=script,
                               returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, condition):
        try:
            async with asyncio.timeout(SECONDS):
                while not await self.evaluate(condition):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise RuntimeError(f"never came true: {condition}")

    async def text(self, selector):
        return await self.evaluate(
            f"document.querySelector('{selector}').innerText.trim()")

    async def press(self, selector="button"):
        """Presses a button as a mouse does, and waits for nothing."""
        x, y = await self.evaluate(
            f"(() => {{ const r = document.querySelector('{selector}')"
            ".getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            await self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y,
                          button="left", clickCount=1)


class Desk(Tab):
    """Where calls arrive; this tab also works in the background."""

    async def take(self):
        await self.until("call !== null")
        await self.evaluate("answer()")

    async def idle(self):
        await self.until("document.readyState === 'complete'"
                         " && find('#status').innerText"
                         " === 'Nobody is calling.'")


class Page(Tab):
    """The page.

    Each response is held until it is noted here, and only then shown to the
    page, so that nothing is missed.
    """

    def __init__(self, socket):
        super().__init__(socket)
        self.responses = []     # (request, status, body)
        self.bodies = []
        self.headers = []
        self.hosts = set()
        self.complaints = []

    def notice(self, event, params):
        if event == "Fetch.requestPaused":
            task = asyncio.create_task(self.note(params))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif event == "Network.responseReceivedExtraInfo":
            # Set-Cookie is shown nowhere else.
            self.headers.append(json.dumps(params["headers"]))
        elif event == "Network.webSocketCreated":
            self.hosts.add(urlsplit(params["url"]).netloc)
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(params)
        elif event == "Log.entryAdded":
            if params["entry"]["source"] != "network":      # a bad status
                self.complaints.append(params["entry"])

    async def start(self):
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.do(domain + ".enable")
        await self.do("Fetch.enable", patterns=[{"requestStage": "Response"}])
        await self.do("Page.addScriptToEvaluateOnNewDocument", source=SCRIPT)

    async def note(self, paused):
        request, number = paused["request"], paused["requestId"]
        url = urlsplit(request["url"])
        self.hosts.add(url.netloc)
        # A page that is left may take its requests with it.
        with contextlib.suppress(RuntimeError):
            if "responseStatusCode" in paused:
                answer = await self.do("Fetch.getResponseBody",
                                       requestId=number)
                body = answer["body"]
                if answer["base64Encoded"]:
                    body = base64.b64decode(body).decode(errors="replace")
                self.responses.append((f"{request['method']} {url.path}",
                                       paused["responseStatusCode"], body))
                self.bodies.append(body)
            await self.do("Fetch.continueRequest", requestId=number)

    def bodies_of(self, request):
        return [json.loads(body) for what, status, body in self.responses
                if (what, status) == (request, 200)]

    async def load(self):
        await self.do("Page.navigate", url=PAGE)
        await self.until("document.readyState === 'complete'"
                         f" && location.href === '{PAGE}'")

    async def state(self, *states):
        """Waits for one of these states, and returns which it is."""
        name = "document.querySelector('main').dataset.state"
        await self.until(f"{json.dumps(states)}.includes({name})")
        return await self.evaluate(name)

    async def settle(self):
        """Waits for the end of an attempt; returns what the page says."""
        await self.until("current === null && document.querySelector('main')"
                         ".dataset.state !== 'ending'")
        return await self.text("#status")

    async def call(self):
        await self.press()
        await self.until("document.querySelector('main').dataset.state"
                         " === 'connected' || current === null")
        if await self.evaluate("current === null"):
            return await self.settle()
        return await self.text("#status")

    async def look(self, pictures, name):
        """What a visitor sees, by day and by night."""
        words = (await self.evaluate("document.body.innerText")).lower()
        check(f"{name}: the page has no words that a visitor does not know", [
            word for word in ("sandbox", "token", "signalwire", "error",
                              "relay", "sdk", "undefined", "nan")
            if word in words], [])
        for scheme in ("light", "dark"):
            await self.do("Emulation.setEmulatedMedia", features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"}])
            contrast = await self.evaluate("leastContrast()")
            check(f"{name}, {scheme}: a contrast of at least 4.5:1",
                  contrast >= 4.5)
            shot = await self.do("Page.captureScreenshot", format="png")
            with open(f"{pictures}/{name}-{scheme}.png", "wb") as file:
                file.write(base64.b64decode(shot["data"]))


class Relay:
    """What has arrived at the relay."""

    def __init__(self, http):
        self.http = http

    async def arrivals(self, method, wait=0):
        async with self.http.get(f"{RELAY}/_relay/journal", ssl=False, params={
                "method": method, "wait": wait}) as response:
            return await response.json()

    async def clear(self):
        async with self.http.delete(f"{RELAY}/_relay/journal", ssl=False):
            pass


def query(sql, *parameters, user="postgres"):
    """Returns the rows, or the SQLSTATE of an error."""
    with psycopg.connect(user=user, autocommit=True) as connection:
        try:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            return error.sqlstate


def forget_calls():
    query("UPDATE call_session SET started_at = started_at - interval '1 day'")


def count_calls():
    return query("SELECT count(*)::int FROM call_session")[0][0]


def newest(columns):
    return query(f"SELECT {columns} FROM call_session"
                 " ORDER BY id DESC LIMIT 1")[0]


def set_script(script):
    query(f"ALTER ROLE web SET sw_guest_token.base_url"
          f" = '{SANDBOX}/script/{script}'")


async def post(http, path, body=None, **headers):
    async with http.post(PAGE + path, data=body, headers={
            name.replace("_", "-"): value
            for name, value in headers.items()}) as response:
        return response.status, response.headers, await response.read()


async def decrypt(http, token):
    async with http.post(SANDBOX + "/_sandbox/decrypt",
                         json={"token": token}) as response:
        return await response.json()


async def encrypt(http, header, claims):
    async with http.post(SANDBOX + "/_sandbox/encrypt", json={
            "header": {"typ": "SAT", **header}, "claims": {
                "exp": 4102444800, "jti": "test", "project_id": "test",
                **claims}}) as response:
        return (await response.json())["token"]


async def test_call(page, desk, relay, http, pictures):
    await page.load()
    check("at first the page waits for the visitor",
          await page.state("idle"), "idle")
    check("and nothing was issued", query("TABLE call_session"), [])
    await page.look(pictures, "1-idle")

    await page.press()
    await desk.until("call !== null")
    check("the button calls the address that the schema was given",
          await desk.text("#status"),
          f"A visitor calls {CALLED}?channel=audio")
    check("while it rings the page connects",
          await page.state("connecting"), "connecting")
    await page.look(pictures, "2-connecting")
    await desk.take()
    check("when the desk answers it is connected",
          await page.state("connected"), "connected")
    await desk.until("listen() > 0.01")
    check("the desk hears the visitor's microphone", True)
    hears = ("current.call.peer.instance.getStats().then((stats) =>"
             " [...stats.values()].some((entry) =>"
             " entry.type === 'inbound-rtp' && entry.totalAudioEnergy > 0))")
    await page.until(hears)
    check("and the visitor hears the desk", True)
    await page.until("/^[0-9]:[0-5][0-9]$/.test(find('#clock').innerText)"
                     " && find('#clock').innerText !== '0:00'")
    check("a clock tells for how long", True)
    await page.look(pictures, "3-connected")

    rows = query("SELECT token, refresh_token, sw_token_header(token),"
                 " floor(extract(epoch FROM expires_at))::int,"
                 " host(visitor), addresses::text[] FROM call_session")
    check("one row is in the table", len(rows), 1)
    token, refresh_token, header, expires_at, visitor, addresses = rows[0]
    check("of the visitor's address", visitor, "127.0.0.1")
    check("for the address that the schema was given", addresses, [ADDRESS])
    inside = await decrypt(http, token)
    check("its token is a guest's, not a refresh token",
          inside["header"]["typ"], "SAT")
    check("it expires when the row says", inside["claims"]["exp"], expires_at)
    check("its header names the host", header["ch"], HOST)
    connects = await relay.arrivals("signalwire.connect")
    check("the token has arrived at the host that its header names",
          [(entry["host"], entry["token"]) for entry in connects],
          [(HOST, token)])
    check("the refresh token is in the row",
          (await decrypt(http, refresh_token))["header"]["typ"], "Refresh")

    answer, = page.bodies_of("POST /call/start")
    check("the browser was sent what it needs, and no more", sorted(answer),
          ["expires_in", "path", "secret", "token"])
    check("the token is valid for 15 minutes, less what it took",
          800 < answer["expires_in"] < 900)
    check("of the secret, the table has only the hash",
          query("SELECT secret_hash = sha256(%s::text::bytea),"
                " strpos(call_session::text, %s) FROM call_session",
                answer["secret"], answer["secret"]), [(True, 0)])

    check("details for developers are folded away",
          await page.evaluate("!find('#token').checkVisibility()"))
    await page.press("summary")
    check("the page then shows the token's beginning and length",
          await page.text("#token"),
          f"{token[:20]}\u2026 {len(token)} characters")
    check("and its header", dict(
        entry.split("=") for entry in
        (await page.text("#header")).split()), header)
    check("and when it expires", await page.text("#expiry") in [
        await page.evaluate(
            f"new Date({expires_at + second} * 1000)"
            ".toLocaleTimeString([], {timeStyle: 'short'})")
        for second in (-1, 0, 1)])
    check("but not the token", await page.evaluate(
        f"document.documentElement.outerHTML.includes('{token[:100]}')"),
        False)
    check("the token is in no storage and no cookie", await page.evaluate(
        "[...Object.values(localStorage), ...Object.values(sessionStorage),"
        f" document.cookie].some((text) => text.includes('{token[:100]}'))"),
        False)
    await page.press("summary")
    return token, answer["secret"]


async def test_refresh(page, desk, relay, http, token, secret):
    delays = await page.evaluate("keptDelays()")
    check("the page plans to refresh the token two minutes before its end",
          [11 * 60e3 < delay <= 13 * 60e3 for delay in delays], [True])

    await page.evaluate("fire()")
    again, = await relay.arrivals("signalwire.reauthenticate", 1)
    check("a token that is valid for long is used again",
          again["token"], token)

    query("UPDATE call_session SET expires_at = now() + interval '2 minutes'")
    await page.until("keptDelays().length > 0")
    await page.evaluate("fire()")
    _, entry = await relay.arrivals("signalwire.reauthenticate", 2)
    row = newest("token, refresh_token,"
                 " expires_at > now() + interval '119 minutes'")
    check("one that is about to expire is replaced", row[0] != token)
    check("the new one arrives at the same host, in the same session",
          (entry["host"], entry["token"]), (HOST, row[0]))
    check("and is a guest's",
          (await decrypt(http, row[0]))["header"]["typ"], "SAT")
    check("it is valid for two hours", row[2])
    await page.until("keptDelays().length > 0")
    delays = await page.evaluate("keptDelays()")
    check("two minutes before that the page refreshes it again",
          [116 * 60e3 < delay <= 118 * 60e3 for delay in delays], [True])
    check("meanwhile the call goes on", await page.state("connected"),
          "connected")
    check("to the relay it has been one session",
          len(await relay.arrivals("signalwire.connect")), 1)

    await page.press()
    check("the button hangs up",
          len(await relay.arrivals("verto.bye", 1)), 1)
    check("as the page says", await page.settle(),
          "The call has ended. Thank you.")
    check("and disconnects", len(await relay.arrivals("(closed)", 1)), 1)
    await desk.idle()
    check("the desk notices", await desk.text("#status"), "Nobody is calling.")
    async with asyncio.timeout(SECONDS):
        while newest("secret_hash")[0]:         # the farewell is on its way
            await asyncio.sleep(0.05)
    check("then the refresh token is gone",
          newest("token, refresh_token"), (None, None))
    status, _, _ = await post(http, "call/refresh", secret)
    check("and the secret is useless", status, 410)


async def test_endings(page, desk, relay, pictures):
    await page.look(pictures, "4-ended")
    await page.press()
    await desk.take()
    await page.state("connected")
    connects = await relay.arrivals("signalwire.connect")
    check("the same page calls again, with a token of its own",
          connects[-1]["token"], newest("token")[0])
    await desk.press("#hangup")
    check("when the desk hangs up the call has ended", await page.settle(),
          "The call has ended. Thank you.")

    await page.press()
    await desk.until("call !== null")
    await desk.press("#decline")
    check("when the desk declines, nobody could take the call",
          await page.settle(),
          "Nobody could take your call. Please try again in a few minutes.")
    await page.look(pictures, "5-unanswered")

    await page.press()
    await desk.until("call !== null")
    await page.press()
    check("a visitor can hang up while it rings", await page.settle(),
          "No call was made.")
    await desk.idle()
    check("then it stops ringing", True)

    forget_calls()
    await page.press()
    await desk.take()
    await page.state("connected")
    closed = len(await relay.arrivals("(closed)"))
    await page.load()
    check("leaving the page hangs up",
          len(await relay.arrivals("(closed)", closed + 1)), closed + 1)
    await desk.idle()


async def test_microphone(page, pictures):
    await page.load()
    before = count_calls()
    for name, message in [
            ("NotAllowedError", "Your browser does not let us use your"
             " microphone. Please allow it next to the page\u2019s address,"
             " then try again."),
            ("NotFoundError", "We cannot find a microphone. Please connect"
             " one, then try again.")]:
        await page.evaluate(
            "navigator.mediaDevices.getUserMedia = async () =>"
            f" {{ throw new DOMException('', '{name}'); }}")
        check(f"{name}: the page asks for the microphone", await page.call(),
              message)
        if name == "NotAllowedError":
            await page.look(pictures, "6-refused")
    check("without it no token was issued", count_calls(), before)


async def test_failures(page, desk, relay, http, pictures):
    forget_calls()
    before = count_calls()
    await page.load()
    failed = "We cannot take calls right now. Please try again later."
    for what, break_it, mend_it, message, status in [
        ("SignalWire fails (500)",
         "ALTER ROLE web SET sw_guest_token.base_url"
         f" = '{SANDBOX}/script/500'", "ALTER ROLE web RESET ALL",
         failed, 503),
        ("SignalWire refuses the address (422)",
         "ALTER ROLE web SET sw_guest_token.base_url"
         f" = '{SANDBOX}/script/422'", "ALTER ROLE web RESET ALL",
         failed, 503),
        ("SignalWire does not accept the credentials (401)",
         "ALTER ROLE web SET sw_guest_token.project_id = 'another'",
         "ALTER ROLE web RESET ALL", failed, 503),
        ("SignalWire's rate limit is reached (429)",
         "ALTER ROLE web SET sw_guest_token.base_url"
         f" = '{SANDBOX}/script/429'", "ALTER ROLE web RESET ALL",
         BUSY, 429),
        ("the database denies the function",
         "REVOKE EXECUTE ON FUNCTION start_call FROM web",
         "GRANT EXECUTE ON FUNCTION start_call TO web", failed, 503),
        ("the database lets nobody in",
         "ALTER ROLE web NOLOGIN", "ALTER ROLE web LOGIN", failed, 503),
    ]:
        query(break_it)
        check(f"{what}: the page says so kindly", await page.call(), message)
        query(mend_it)
        phrase = HTTPStatus(status).phrase
        check("the browser was told nothing more", page.responses[-1],
              ("POST /call/start", status, f"{status}: {phrase}"))
        check("and the page shows nothing more",
              await page.evaluate("find('details').hidden"))
        if message == BUSY:
            await page.load()
    await page.look(pictures, "7-failed")

    await page.do("Network.emulateNetworkConditions", offline=True,
                  latency=0, downloadThroughput=-1, uploadThroughput=-1)
    check("the backend cannot be reached: the page says so kindly",
          await page.call(), failed)
    await page.do("Network.emulateNetworkConditions", offline=False,
                  latency=0, downloadThroughput=-1, uploadThroughput=-1)
    check("none of them has left a row", count_calls(), before)

    expired = await encrypt(http, {"ch": HOST}, {"exp": 1})
    set_script(f"201,token={quote(expired)},refresh=x")
    check("the relay refuses the token: the page says so kindly",
          await page.call(), failed)
    lost = await encrypt(http, {"ch": "gone.signalwire.com"}, {})
    set_script(f"201,token={quote(lost)},refresh=x")
    await page.press()
    await page.state("connecting")
    await page.until("keptDelays().length > 0")
    await page.evaluate("fire()")
    check("the relay cannot be found: the page says so kindly",
          await page.settle(), failed)
    query("ALTER ROLE web RESET ALL")
    await page.evaluate("window.old = true")
    await page.press()
    await page.until("!window.old && document.readyState === 'complete'")
    check("if its client waits for ever, the page is loaded again",
          await page.state("idle"), "idle")
    await page.press()
    await desk.take()
    check("and then the page calls",
          await page.state("connected"), "connected")
    await page.press()
    await page.settle()


async def test_limits(page, http, pictures):
    forget_calls()
    await page.load()
    for _ in range(5):
        status, _, _ = await post(http, "call/start")
        check("a visitor gets five tokens", status, 200)
    check("and then a friendly refusal", await page.call(),
          BUSY)
    check("with the time to wait",
          (await page.text("#clock"))[:3] in ("15:", "14:"))
    check("and until then the button is disabled",
          await page.evaluate("find('button').disabled"))
    await page.look(pictures, "8-busy")
    _, headers, _ = await post(http, "call/start")
    check("the time is in a header, too",
          800 < int(headers["Retry-After"]) <= 900)
    await page.evaluate(
        "{ const now = Date.now; Date.now = () => now() + 900e3; }")
    check("when the time is over, the page says so", await page.state("ready"),
          "ready")
    forget_calls()

    # The sandbox holds a request of this script until there is another one.
    async with http.delete(SANDBOX + "/_sandbox/journal"):
        pass
    set_script("hold,n=2")
    first = asyncio.create_task(post(http, "call/start"))
    async with http.get(SANDBOX + "/_sandbox/journal?wait=1"):
        pass
    status, headers, _ = await post(http, "call/start")
    check("a visitor who waits for a token gets no second one",
          (status, headers["Retry-After"]), (429, "5"))
    async with http.post(SANDBOX + "/script/hold,n=2/"):
        pass
    check("but the first", (await first)[0], 200)
    query("ALTER ROLE web RESET ALL")

    before = count_calls()
    for path in ("call/start", "call/refresh", "call/end"):
        status, _, _ = await post(http, path, Sec_Fetch_Site="cross-site")
        check(f"another site's page gets nothing from {path}", status, 403)
        async with http.get(PAGE + path) as response:
            check("nor does a link", response.status, 405)
    check("no token was issued for them", count_calls(), before)


async def test_route(http):
    """The refresh route, by itself."""
    forget_calls()
    _, _, body = await post(http, "call/start")
    started = json.loads(body)
    secret = started["secret"]

    async def refresh(secret=secret):
        status, _, body = await post(http, "call/refresh", secret)
        return status, json.loads(body)["token"] if status == 200 else None

    check("a secret that nobody was given gets nothing",
          await refresh("11111111-1111-4111-8111-111111111111"), (410, None))
    check("a token as the secret gets nothing",
          await refresh(started["token"]), (410, None))
    check("an empty secret gets nothing", await refresh(""), (410, None))
    check("a text too long for a secret is not read",
          (await refresh("x" * 2000))[0], 413)

    query("UPDATE call_session SET expires_at = now() WHERE token = %s",
          started["token"])
    set_script("500")
    check("while SignalWire fails, there is no new token for now",
          await refresh(), (503, None))
    query("ALTER ROLE web RESET ALL")
    both = await asyncio.gather(refresh(), refresh())
    check("two that ask at once get the same new token",
          (both[0], both[0][1] != started["token"]), (both[1], True))
    query("UPDATE call_session SET started_at = now() - interval '4 hours'"
          " WHERE token = %s", both[0][1])
    check("after four hours there is no new token",
          await refresh(), (410, None))
    query("UPDATE call_session SET started_at = now(), expires_at = now(),"
          " refresh_token = token WHERE token = %s", both[0][1])
    check("nor is there one if SignalWire refuses the refresh token",
          await refresh(), (410, None))


def test_roles():
    for what, sql in [
        ("call the extension",
         f"SELECT * FROM sw_create_guest_token(ARRAY['{ADDRESS}'::uuid])"),
        ("refresh what it likes", "SELECT * FROM sw_refresh_guest_token('x')"),
        ("see the tokens", "SELECT token FROM call_session"),
        ("insert what it likes",
         "INSERT INTO call_session (visitor) VALUES ('127.0.0.1')"),
        ("change whom it calls", "UPDATE destination SET path = '/x'"),
        ("be another role", "SET ROLE switchboard"),
        ("see where the API token is", "SHOW sw_guest_token.api_token_file"),
        ("send it elsewhere",
         "SET sw_guest_token.base_url = 'http://127.0.0.1:1'"),
    ]:
        check(f"the application cannot {what}", query(sql, user="web"),
              "42501")
    check("nor can the role that owns its functions ask for tokens",
          query("SELECT has_function_privilege('switchboard', p.oid,"
                " 'EXECUTE') FROM pg_proc p"
                " WHERE proname = 'sw_create_guest_token'"), [(False,)])
    forget_calls()
    visitors = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]
    query("SELECT start_call(v::inet) FROM unnest(%s::text[]) v", visitors)
    check("an IPv6 network of 2^64 addresses is one visitor",
          query("SELECT visitor::text, count(*)::int FROM call_session"
                " WHERE family(visitor) = 6 GROUP BY 1 ORDER BY 1"),
          [("2001:db8:0:1::/64", 1), ("2001:db8::/64", 2)])


async def test_policy(page):
    await page.load()
    blocked = await page.evaluate("""
      new Promise((resolve) => {
        addEventListener('securitypolicyviolation', (event) =>
          resolve([event.effectiveDirective, event.blockedURI]));
        fetch('https://example.com/').catch(() => {});
      })""")
    check("the page may talk to nobody else", blocked,
          ["connect-src", "https://example.com/"])
    check("and the browser reports the attempt", len(page.complaints) > 0)
    page.complaints.clear()


def test_secrets(page, issued, refresh_tokens):
    received = "\n".join(page.bodies + page.headers)
    with open(LOG) as file:
        log = file.read()
    # The search finds what is there.
    check("the browser has been sent headers", "no-referrer" in received)
    check("and the visitor's tokens",
          [token in received for token in issued], [True] * len(issued))
    check("the log has the SQLSTATE of each failure", [
        f"SQLSTATE {state}" in log for state in
        ("58000", "28000", "53400", "42501", "22023")], [True] * 5)
    secrets = {
        "the API token": [CREDENTIALS[1]],
        "the project": [CREDENTIALS[0]],
        "what authorizes a request":
            [base64.b64encode(":".join(CREDENTIALS).encode()).decode()],
        "a refresh token": refresh_tokens,
    }
    check("there were refresh tokens", len(refresh_tokens) > 0)
    for what, values in secrets.items():
        check(f"{what} has never been sent to the browser",
              [value for value in values if value in received], [])
    for what, values in {**secrets, "a token": issued}.items():
        if what != "the project":
            check(f"{what} is not in the backend's log",
                  [value for value in values if value in log], [])
    check("the browser has been sent no cookie",
          [text for text in page.headers if "set-cookie" in text.lower()], [])
    check("the page has talked to its server and to SignalWire's hosts",
          page.hosts, {urlsplit(PAGE).netloc, HOST, "gone.signalwire.com"})
    check("and its browser has nothing to complain about", page.complaints, [])


async def start_chromium(profile):
    chromium = await asyncio.create_subprocess_exec(
        *CHROMIUM, f"--user-data-dir={profile}", "about:blank",
        stderr=asyncio.subprocess.PIPE)
    lines = []
    async with asyncio.timeout(SECONDS):
        while line := (await chromium.stderr.readline()).decode():
            lines.append(line)
            if line.startswith("DevTools listening on "):
                return chromium, urlsplit(line.split()[-1]).netloc
    raise RuntimeError("Chromium did not start:\n" + "".join(lines))


@contextlib.asynccontextmanager
async def open_tab(http, place, kind, url):
    async with http.put(f"http://{place}/json/new?{quote(url)}") as response:
        target = await response.json(content_type=None)
    async with http.ws_connect(target["webSocketDebuggerUrl"],
                               max_msg_size=0) as socket:
        tab = kind(socket)
        listener = asyncio.create_task(tab.listen())
        try:
            yield tab
        finally:
            listener.cancel()


async def test_all(place, http, pictures):
    relay = Relay(http)
    async with open_tab(http, place, Desk, f"{RELAY}/desk") as desk, \
            open_tab(http, place, Page, "about:blank") as page:
        await desk.idle()
        await page.start()
        await page.do("Emulation.setDeviceMetricsOverride", width=600,
                      height=520, deviceScaleFactor=2, mobile=False)
        token, secret = await test_call(page, desk, relay, http, pictures)
        refresh_tokens = [row[0] for row in query(
            "SELECT refresh_token FROM call_session")]
        await test_refresh(page, desk, relay, http, token, secret)
        await test_endings(page, desk, relay, pictures)
        await test_microphone(page, pictures)
        await test_failures(page, desk, relay, http, pictures)
        await test_limits(page, http, pictures)
        await test_route(http)
        test_roles()
        await test_policy(page)
        test_secrets(page, [token], refresh_tokens)


async def main(pictures):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium, place = await start_chromium(profile)
        drain = asyncio.create_task(chromium.stderr.read())
        try:
            async with aiohttp.ClientSession() as http:
                await test_all(place, http, pictures)
        finally:
            chromium.terminate()
            await chromium.wait()
            drain.cancel()
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
