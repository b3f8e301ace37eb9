#!/usr/bin/python3
"""Presses the page's button in headless Chromium, and judges what comes of it.

`run --test` starts this, with the page's URL and the rest in the environment.
Chromium is spoken to in its DevTools protocol, which also tells all that it is
sent: headers and bodies of every response, in which no secret may be.
"""

import asyncio
import base64
import itertools
import json
import os
import sys
import tempfile
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import psycopg

PAGE, SANDBOX, LOG = (os.environ[name] for name in ("PAGE", "SANDBOX", "LOG"))
ADDRESS = os.environ["ADDRESS"]
CREDENTIALS = os.environ["PROJECT_ID"], os.environ["API_TOKEN"]
SECONDS = 60                    # for what takes a fraction of one

# Not its sandbox, which not every container allows: the page is our own.  No
# name is looked up, so that it talks to nobody but us.
CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0"]

IDLE = "We are there for you."
READY = "Your guest token has arrived."
EXPIRED = "That took a while. Please press the button again."
BUSY = "Too many calls. Please try again in a few minutes."
FAILED = "We cannot take calls right now. Please try again later."

passed, failed = [], []


def check(name, got, expected=True):
    good = got == expected
    (passed if good else failed).append(name)
    print(f"{'ok' if good else 'not ok'} - {name}", flush=True)
    if not good:
        print(f"#      got: {got!r}\n# expected: {expected!r}", flush=True)


class Browser:
    """One page of Chromium's.

    Each response is held until it is noted here, and only then shown to the
    page: nothing that the browser is sent is missed.
    """

    def __init__(self, socket):
        self.socket = socket
        self.numbers = itertools.count(1)
        self.answers = {}
        self.responses = []     # (request, status, body)
        self.received = []      # the bodies and headers, as text
        self.hosts = set()
        self.complaints = []
        self.time_is_over = asyncio.Event()
        self.tasks = set()

    async def listen(self):
        async for message in self.socket:
            message = message.json()
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            elif message["method"] == "Fetch.requestPaused":
                task = asyncio.create_task(self.note(message["params"]))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            elif message["method"] == "Network.responseReceivedExtraInfo":
                # Set-Cookie is nowhere else.
                self.received.append(json.dumps(message["params"]["headers"]))
            elif message["method"] == "Emulation.virtualTimeBudgetExpired":
                self.time_is_over.set()
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(message["params"])
            elif message["method"] == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["source"] != "network":    # a status that is no 200
                    self.complaints.append(entry)

    async def start(self):
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.do(domain + ".enable")
        await self.do("Fetch.enable", patterns=[{"requestStage": "Response"}])

    async def note(self, paused):
        request, number = paused["request"], paused["requestId"]
        url = urlsplit(request["url"])
        self.hosts.add(url.netloc)
        if "responseStatusCode" in paused:
            answer = await self.do("Fetch.getResponseBody", requestId=number)
            body = answer["body"]
            if answer["base64Encoded"]:
                body = base64.b64decode(body).decode(errors="replace")
            self.responses.append((f"{request['method']} {url.path}",
                                   paused["responseStatusCode"], body))
            self.received.append(body)
        await self.do("Fetch.continueRequest", requestId=number)

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
                               returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, condition):
        async with asyncio.timeout(SECONDS):
            while not await self.evaluate(condition):
                await asyncio.sleep(0.05)

    async def load(self):
        await self.do("Page.navigate", url=PAGE)
        await self.until("document.readyState === 'complete'"
                         f" && location.href === '{PAGE}'")

    async def text(self, selector):
        return await self.evaluate(
            f"document.querySelector('{selector}').innerText.trim()")

    async def press(self):
        """Presses the button as a mouse does, and waits for nothing."""
        x, y = await self.evaluate(
            "(() => { const r = document.querySelector('button')"
            ".getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            await self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y,
                          button="left", clickCount=1)

    async def settle(self):
        """Waits until there is an outcome; returns what the page says."""
        await self.until(
            "document.querySelector('main').dataset.state !== 'waiting'")
        return await self.text("#status")

    async def call(self):
        await self.press()
        return await self.settle()


def query(sql, *parameters, user="postgres"):
    """Returns the rows, or the SQLSTATE of an error."""
    with psycopg.connect(user=user, autocommit=True) as connection:
        try:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            return error.sqlstate


def forget_calls():
    query("UPDATE guest_call SET expires_at = now()")


def set_script(script):
    query(f"ALTER ROLE web SET sw_guest_token.base_url"
          f" = '{SANDBOX}/script/{script}'")


async def test_token(browser, http, picture):
    await browser.load()
    check("at first the page waits for the visitor",
          await browser.text("#status"), IDLE)
    check("and nothing was issued", query("TABLE guest_call"), [])

    check("the button gets a token", await browser.call(), READY)
    rows = query("SELECT token, refresh_token, sw_token_header(token),"
                 " floor(extract(epoch FROM expires_at))::int,"
                 " host(visitor), addresses::text[] FROM guest_call")
    check("one row is in the table", len(rows), 1)
    token, refresh_token, header, expires_at, visitor, addresses = rows[0]
    check("of the visitor's address", visitor, "127.0.0.1")
    check("for the address that the schema was given", addresses, [ADDRESS])

    issued = [json.loads(body) for request, _, body in browser.responses
              if request == "POST /token"]
    check("the browser was sent the token, and for how long it is valid",
          [{**answer, "expires_in": 0} for answer in issued],
          [{"token": token, "expires_in": 0}])
    check("which is 15 minutes, less what it took",
          800 < issued[0]["expires_in"] < 900)

    async with http.post(SANDBOX + "/_sandbox/decrypt",
                         json={"token": token}) as response:
        inside = await response.json()
    check("the sandbox can decrypt it: it is one of its own",
          response.status, 200)
    check("it is a guest's, not a refresh token",
          inside["header"]["typ"], "SAT")
    check("it expires when the row says",
          inside["claims"]["exp"], expires_at)
    async with http.post(SANDBOX + "/_sandbox/decrypt",
                         json={"token": refresh_token}) as response:
        inside = await response.json()
    check("the refresh token is in the row", inside["header"]["typ"],
          "Refresh")

    check("the page shows the token's beginning and length",
          await browser.text("#token"),
          f"{token[:20]}\u2026 {len(token)} characters")
    check("and its header", dict(
        entry.split("=") for entry in
        (await browser.text("#header")).split()), header)
    check("and until when it is valid", await browser.text("#expiry") in [
        await browser.evaluate(
            f"new Date({expires_at + second} * 1000)"
            ".toLocaleTimeString([], {timeStyle: 'short'})")
        for second in (-1, 0, 1)])
    check("but not the token", await browser.evaluate(
        "document.documentElement.outerHTML"
        f".includes('{token[:100]}')"), False)
    check("which is in no storage and no cookie", await browser.evaluate(
        "[localStorage.length, sessionStorage.length, document.cookie]"),
        [0, 0, ""])
    height = await browser.evaluate(
        "document.querySelector('main').offsetHeight + 80")
    await browser.do("Emulation.setDeviceMetricsOverride", width=720,
                     height=height, deviceScaleFactor=2, mobile=False)
    shot = await browser.do("Page.captureScreenshot", format="png")
    with open(picture, "wb") as file:
        file.write(base64.b64decode(shot["data"]))

    await browser.load()
    check("a page that is loaded again has none",
          await browser.text("#status"), IDLE)


async def test_expiry(browser):
    """Lets 16 minutes pass, of the page's time; which stands still then."""
    async def advance(minutes):
        await browser.do("Emulation.setVirtualTimePolicy", policy="advance",
                         budget=minutes * 60 * 1000)
        await asyncio.wait_for(browser.time_is_over.wait(), SECONDS)
        browser.time_is_over.clear()

    forget_calls()
    await browser.load()
    await browser.call()
    await advance(14)
    check("14 minutes later the page is still ready",
          await browser.text("#status"), READY)
    await advance(2)
    check("16 minutes later it says that the token has expired",
          await browser.text("#status"), EXPIRED)
    check("and can be asked again", await browser.call(), READY)


async def test_failures(browser):
    forget_calls()
    before = query("SELECT count(*) FROM guest_call")
    await browser.load()
    for what, break_it, mend_it, message, status in [
        ("SignalWire fails (500)",
         "ALTER ROLE web SET sw_guest_token.base_url"
         f" = '{SANDBOX}/script/500'", "ALTER ROLE web RESET ALL",
         FAILED, 503),
        ("SignalWire does not accept the credentials (401)",
         "ALTER ROLE web SET sw_guest_token.project_id = 'another'",
         "ALTER ROLE web RESET ALL", FAILED, 503),
        ("SignalWire's rate limit is reached (429)",
         "ALTER ROLE web SET sw_guest_token.base_url"
         f" = '{SANDBOX}/script/429'", "ALTER ROLE web RESET ALL",
         BUSY, 429),
        ("the database denies the function",
         "REVOKE EXECUTE ON FUNCTION call_token FROM web",
         "GRANT EXECUTE ON FUNCTION call_token TO web", FAILED, 503),
        ("the database lets nobody in",
         "ALTER ROLE web NOLOGIN", "ALTER ROLE web LOGIN", FAILED, 503),
    ]:
        query(break_it)
        check(f"{what}: the page says so kindly", await browser.call(),
              message)
        query(mend_it)
        phrase = HTTPStatus(status).phrase
        check("which is all that it was told", browser.responses[-1],
              ("POST /token", status, f"{status}: {phrase}"))
        check("and all that it shows", await browser.evaluate(
            "document.querySelector('#details').hidden"))

    await browser.do("Network.emulateNetworkConditions", offline=True,
                     latency=0, downloadThroughput=-1, uploadThroughput=-1)
    check("the backend cannot be reached: the page says so kindly",
          await browser.call(), FAILED)
    await browser.do("Network.emulateNetworkConditions", offline=False,
                     latency=0, downloadThroughput=-1, uploadThroughput=-1)
    check("none of them has left a row",
          query("SELECT count(*) FROM guest_call"), before)
    check("and when it is over the same page gets its token",
          await browser.call(), READY)


async def test_limits(browser, http):
    forget_calls()
    outcomes = []
    for _ in range(6):
        await browser.load()
        outcomes.append(await browser.call())
    check("a visitor gets five tokens, and then a friendly no", outcomes,
          [READY] * 5 + [BUSY])
    forget_calls()
    check("and one more when they have expired", await browser.call(), READY)

    # The sandbox holds a request of this script until there is another one.
    await browser.load()
    async with http.delete(SANDBOX + "/_sandbox/journal"):
        pass
    set_script("hold,n=2")
    await browser.press()
    async with http.get(SANDBOX + "/_sandbox/journal?wait=1"):
        pass
    async with http.post(PAGE + "token") as response:
        check("who waits for a token gets no second one", response.status,
              429)
    async with http.post(SANDBOX + "/script/hold,n=2/"):
        pass
    check("but the first", await browser.settle(), READY)
    query("ALTER ROLE web RESET ALL")

    before = query("SELECT count(*) FROM guest_call")
    async with http.post(PAGE + "token", headers={
            "Sec-Fetch-Site": "cross-site"}) as response:
        check("another site's page gets no token", response.status, 403)
    async with http.get(PAGE + "token") as response:
        check("nor does a link", response.status, 405)
    check("for neither was one issued",
          query("SELECT count(*) FROM guest_call"), before)


def test_roles():
    for what, sql in [
        ("call the extension",
         f"SELECT * FROM sw_create_guest_token(ARRAY['{ADDRESS}'::uuid])"),
        ("see the tokens", "SELECT token FROM guest_call"),
        ("insert what it likes",
         "INSERT INTO guest_call (visitor) VALUES ('127.0.0.1')"),
        ("be another role", "SET ROLE switchboard"),
        ("see where the API token is", "SHOW sw_guest_token.api_token_file"),
        ("send it elsewhere",
         "SET sw_guest_token.base_url = 'http://127.0.0.1:1'"),
    ]:
        check(f"the application cannot {what}", query(sql, user="web"),
              "42501")
    check("nor can the role that owns its function call the extension",
          query("SELECT has_function_privilege('switchboard', p.oid,"
                " 'EXECUTE') FROM pg_proc p"
                " WHERE proname = 'sw_create_guest_token'"), [(False,)])
    forget_calls()
    visitors = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]
    query("SELECT call_token(v::inet) FROM unnest(%s::text[]) v", visitors)
    check("an IPv6 network of 2^64 addresses is one visitor",
          query("SELECT visitor::text, count(*)::int FROM guest_call"
                " WHERE family(visitor) = 6 GROUP BY 1 ORDER BY 1"),
          [("2001:db8:0:1::/64", 1), ("2001:db8::/64", 2)])


def test_secrets(browser):
    received = "\n".join(browser.received)
    with open(LOG) as file:
        log = file.read()
    tokens = [row[0] for row in query(
        "SELECT token FROM guest_call WHERE visitor = '127.0.0.1'")]
    refresh_tokens = [row[0] for row in query(
        "SELECT refresh_token FROM guest_call")]
    # What is there is found.
    check("the browser has been sent headers", "no-referrer" in received)
    check("and the visitor's tokens",
          [token in received for token in tokens], [True] * len(tokens))
    check("the log has the SQLSTATE of each failure", [
        f"SQLSTATE {state}" in log for state in
        ("58000", "28000", "53400", "42501")], [True] * 4)
    secrets = {
        "the API token": [CREDENTIALS[1]],
        "the project": [CREDENTIALS[0]],
        "what authorizes a request":
            [base64.b64encode(":".join(CREDENTIALS).encode()).decode()],
        "a refresh token": refresh_tokens,
    }
    for what, values in secrets.items():
        check(f"{what} has never been sent to the browser",
              [value for value in values if value in received], [])
    for what, values in {**secrets, "a token": tokens}.items():
        if what != "the project":
            check(f"{what} is not in the backend's log",
                  [value for value in values if value in log], [])
    check("the browser has been sent no cookie",
          "set-cookie" in received.lower(), False)
    check("the browser has asked nobody else", browser.hosts,
          {urlsplit(PAGE).netloc})
    check("and has nothing to complain about", browser.complaints, [])


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


async def main(picture):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium, place = await start_chromium(profile)
        drain = asyncio.create_task(chromium.stderr.read())
        try:
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://{place}/json") as response:
                    targets = await response.json(content_type=None)
                url = next(target["webSocketDebuggerUrl"]
                           for target in targets if target["type"] == "page")
                async with http.ws_connect(url, max_msg_size=0) as socket:
                    browser = Browser(socket)
                    listener = asyncio.create_task(browser.listen())
                    await browser.start()
                    await test_token(browser, http, picture)
                    await test_failures(browser)
                    await test_limits(browser, http)
                    await test_expiry(browser)
                    test_roles()
                    test_secrets(browser)
                    listener.cancel()
        finally:
            chromium.terminate()
            await chromium.wait()
            drain.cancel()
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
