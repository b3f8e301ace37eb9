"""What the Python programs beside this file check, whatever the driver."""

import threading

ADDRESS = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
ROWS = [{"id": 1, "addresses": [ADDRESS]},
        {"id": 2, "addresses": [ADDRESS, ADDRESS]},
        {"id": 3, "addresses": [ADDRESS]},
        {"id": 4, "addresses": []}]


def check(good, what):
    if not good:
        raise AssertionError(what)


def check_token(row):
    check(len(row) == 2 and all(text.startswith("eyJ") for text in row),
          f"a pair of tokens: {row}")


def check_rows(rows):
    """Rows of id, token, refresh_token, error_code, error."""
    rows = sorted(tuple(row) for row in rows)
    check([row[0] for row in rows] == [1, 2, 3, 4], f"four rows: {rows}")
    for row in rows[:3]:
        check_token(row[1:3])
    check(rows[3][1] is None and rows[3][3] == "22023", f"a failure: {rows}")


def check_fails(code, message, call, *arguments):
    """Calls, and expects this SQLSTATE and these words."""
    try:
        call(*arguments)
    except Exception as error:
        cause = error.__cause__ or error
        found = getattr(cause, "sqlstate", getattr(cause, "pgcode", None))
        check(found == code and message in str(error),
              f"{code} {message}: {found} {error!r}")
        return
    raise AssertionError(f"{code} {message}: it succeeded")


def check_snippet(connect, execute, one_token, many_tokens,
                  token_unless_down, cancel):
    """Tries the four functions of a driver whose calls block."""
    app = connect("app")
    check_token(one_token(app, [ADDRESS]))
    # this API answers only if three requests are there: it takes reading ahead
    check_rows(many_tokens(connect("ahead"), ROWS))
    check_token(token_unless_down(app, [ADDRESS]))
    check(token_unless_down(connect("down"), [ADDRESS]) is None, "an outage")
    check_fails(None, "22023: addresses must have 1 to 10 elements",
                token_unless_down, app, [])

    # this API never answers
    slow = connect("slow")
    watcher = connect("slow")

    def cancel_when_called():
        execute(watcher, "SELECT until_called()")
        cancel(slow)

    thread = threading.Thread(target=cancel_when_called)
    thread.start()
    check_fails("57014", "due to user request", one_token, slow, [ADDRESS])
    thread.join()


def store_and_ask(connection, execute, token_unless_down):
    """In an open transaction: stores a row, and asks an API that is down."""
    execute(connection, "INSERT INTO visit DEFAULT VALUES RETURNING id")
    check(token_unless_down(connection, [ADDRESS]) is None, "an outage")


def check_stored(connection, execute, rows):
    """How many rows are there after that?"""
    found = execute(connection, "SELECT count(*) FROM visit")[0]
    check(found == rows, f"{found} rows, not {rows}")


def check_traps(app, execute):
    """What goes wrong with psycopg 3 and 2, and how it looks."""
    bare = execute(app, "SELECT sw_create_guest_token(%s::uuid[])", [ADDRESS])
    check(bare[0].startswith("(eyJ"), f"text and no columns: {bare}")
    check_fails("42883", "function sw_create_guest_token(uuid[], bigint)"
                " does not exist", execute, app,
                "SELECT * FROM sw_create_guest_token(%s::uuid[], %s)",
                [ADDRESS], 1900000000000)
    check_fails("22P02", f'malformed array literal: "{ADDRESS}"', execute, app,
                "SELECT * FROM sw_create_guest_token(%s)", ADDRESS)
    check_fails("22P02", "malformed record literal", execute, app,
                "SELECT * FROM sw_create_guest_tokens("
                "%s::sw_guest_token_request[])", ["{" + ADDRESS + "}"])
