#!/usr/bin/python3
"""Compares what queries do with sw_guest_token.read_ahead off and on.

    differential.py [--seed N] [--only K] [--verbose] [QUERIES]

Generates random statements that ask for guest tokens, and runs each twice in
a transaction that is rolled back: with the setting off, and on.  Both must
give the same rows in the same order, the same tables, the same SQLSTATE and
message, and the same number of requests, or fewer if (f(x)).* was expanded.
A token says what was asked for, so that each row shows whose token it has.

The server is that of PGHOST (a directory), PGPORT and PGUSER, a superuser who
needs no password.  It has sw_guest_token.breaker off; what the statements use
goes into the database postgres, in a schema of its own.  This program is also
the API, on the loopback interface.

Prints a table of the kinds of statements: for each, how many ended with an
error, how many were refused (a mistake of this program), and how many had
several requests in flight.  Statements that differ are printed with both
results, and then the exit status is 1.  --only K runs only the Kth.
"""

import argparse
import asyncio
import collections
import json
import os
import pwd
import random
import re
import socket
import struct
import sys
import threading
import time

PLAIN = 'sw_create_guest_token'
TRY = 'sw_try_create_guest_token'
COLUMNS = ('id', 'addresses', 'region', 'ch', 'expire', 'n', 'grp')
N_PATHS = 8
WRONG = "SELECT 'a'::int"
NODE = 'Custom Scan (Guest Tokens)'
RAISED = ('08P01', '22004', '22023', '28000', '42501', '42704', '53400',
          '58000')             # by calls
REFUSALS = {401: '28000', 403: '42501'}         # after which nothing is sent
FAR = 2100000000                # an expiry that can be told from others

#
# The API
#


class Api(asyncio.Protocol):
    """Answers with what was asked for; a region "s422" asks for a 422."""

    # By path, so that one that was abandoned does not count for the next.
    requests = [0] * N_PATHS
    in_flight = [0] * N_PATHS
    most_in_flight = [0] * N_PATHS
    refusals = [set() for _ in range(N_PATHS)]  # SQLSTATEs
    delay = False
    delays = random.Random(1)

    def connection_made(self, transport):
        self.transport = transport
        self.data = b''

    def data_received(self, data):
        self.data += data
        while True:
            head, separator, rest = self.data.partition(b'\r\n\r\n')
            length = 0
            for line in head.split(b'\r\n'):
                if line.lower().startswith(b'content-length:'):
                    length = int(line[15:])
            if not separator or len(rest) < length:
                return
            self.data = rest[length:]
            self.take(int(head.split(b'/')[1]), json.loads(rest[:length]))

    def take(self, path, request):
        Api.requests[path] += 1
        Api.in_flight[path] += 1
        Api.most_in_flight[path] = max(Api.most_in_flight[path],
                                       Api.in_flight[path])
        delay = Api.delay and Api.delays.choice((0, 0, 0.001, 0.002))
        if delay:
            # Answers overtake one another.
            asyncio.get_running_loop().call_later(delay, self.answer, path,
                                                  request)
        else:
            self.answer(path, request)

    def answer(self, path, request):
        Api.in_flight[path] -= 1
        status, answer = 201, {}
        region = request.get('region', '')
        if region[:1] == 's' and region[1:4].isdigit():
            status = int(region[1:4])
        if status in REFUSALS:
            Api.refusals[path].add(REFUSALS[status])
        if status == 201:
            expire = request.get('expire_at', 0)
            token = '|'.join((
                ','.join(a[-4:] for a in request['allowed_addresses']),
                str(expire - FAR if expire >= FAR else expire and 'soon'),
                region, str(request.get('ch', ''))))
            answer = {'token': token, 'refresh_token': 'refresh ' + token}
        body = json.dumps(answer).encode()
        self.transport.write(
            b'HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n'
            b'Content-Length: %d\r\n\r\n%b' % (status, len(body), body))


def start_api():
    """Starts the API in a thread; returns its URL."""
    loop = asyncio.new_event_loop()
    listener = loop.run_until_complete(
        loop.create_server(Api, '127.0.0.1', 0, backlog=300))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return 'http://127.0.0.1:%d' % listener.sockets[0].getsockname()[1]


#
# The client, which can ask a portal for some of its rows
#


class Session:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect('%s/.s.PGSQL.%s' % (
            os.environ['PGHOST'], os.environ['PGPORT']))
        self.file = self.socket.makefile('rb')
        user = os.environ.get('PGUSER') or pwd.getpwuid(os.getuid()).pw_name
        words = b'user\0%b\0database\0postgres\0\0' % user.encode()
        self.socket.sendall(struct.pack('!ii', len(words) + 8, 196608) +
                            words)
        self.read('Z')

    def send(self, *messages):
        self.socket.sendall(b''.join(
            kind.encode() + struct.pack('!i', len(body) + 4) + body
            for kind, body in messages))

    def read(self, ends):
        """What the server says, as lines, until one of these messages."""
        lines = []
        while True:
            head = self.file.read(5)
            if len(head) < 5:
                raise EOFError('the server has gone')
            kind = head[:1].decode()
            body = self.file.read(struct.unpack('!i', head[1:])[0] - 4)
            if kind == 'D':
                lines.append(self.read_row(body))
            elif kind == 'd':
                lines.append(body.decode().rstrip('\n'))
            elif kind in 'EN':
                fields = {f[:1]: f[1:].decode()
                          for f in body.split(b'\0') if f}
                # the server numbers portals
                lines.append(re.sub(r'(<unnamed portal) \d+', r'\1', ' '.join(
                    (fields[b'S'], fields[b'C'], fields[b'M']))))
            elif kind == 'C':
                lines.append('(%s)' % body[:-1].decode())
            if kind in ends:
                return lines, kind

    @staticmethod
    def read_row(body):
        values, at = [], 2
        for _ in range(struct.unpack('!h', body[:2])[0]):
            length = struct.unpack('!i', body[at:at + 4])[0]
            at += 4
            values.append('NULL' if length < 0 else
                          body[at:at + length].decode())
            at += max(length, 0)
        return ' ; '.join(values)

    def query(self, sql):
        self.send(('Q', sql.encode() + b'\0'))
        return self.read('Z')[0]

    def portals(self, statements, portions):
        """Reads portions of statements in turn: [(SQL, parameters)]."""
        lines = []
        for i, (sql, params) in enumerate(statements):
            name = b'p%d\0' % i
            values = b''.join(struct.pack('!i', len(p)) + p for p in
                              (str(value).encode() for value in params))
            self.send(
                ('P', b'\0' + sql.encode() + b'\0\0\0'),
                ('B', name + b'\0\0\0' + struct.pack('!h', len(params)) +
                 values + b'\0\0'))
        running = list(range(len(statements)))
        for portion in portions:
            for i in list(running):
                self.send(('E', b'p%d\0' % i + struct.pack('!i', portion)),
                          ('H', b''))
                some, end = self.read('sCIE')
                lines += ['portal %d' % i] + some
                if end == 'E':
                    running = []
                    break
                if end != 's':
                    running.remove(i)
            if not running:
                break
        self.send(('S', b''))
        return lines + self.read('Z')[0]


#
# The data
#


def make_data(rng):
    """SQL for what the statements use."""
    def address(i):
        return '00000000-0000-4000-8000-%012d' % i

    def row(i, is_good):
        addresses = '{%s}' % ','.join(
            address(i * 10 + j) for j in range(1 + i % 3))
        region = rng.choice(('us', 'eu', None))
        expire = rng.choice((FAR + i, FAR + 7, None))
        if not is_good and rng.random() < 0.09:
            kind = rng.randrange(10)
            if kind < 6:
                region = 's' + rng.choice(('422', '400', '500', '401', '403',
                                           '429', '404', '204'))
            elif kind == 6:
                expire = 1
            else:
                addresses = (None, '{}', '{NULL}')[kind - 7]
        ch = rng.choice(('c%d' % i, 'c', None))
        values = (i, addresses, region, ch, expire, i * 7 % 11, i % 5,
                  rng.choice(('a%d' % (i % 4), None)))
        return '(%s)' % ', '.join('NULL' if v is None else repr(v)
                                  for v in values)

    sql = ['CREATE EXTENSION IF NOT EXISTS sw_guest_token;',
           'DROP SCHEMA IF EXISTS differential CASCADE;',
           'CREATE SCHEMA differential;'
           'SET search_path = differential, public;',
           'CREATE TABLE s (id int PRIMARY KEY, name text);'
           "INSERT INTO s SELECT i, 'n' || i % 3"
           ' FROM generate_series(0, 10, 2) i;']
    columns = ('(id int PRIMARY KEY, addresses uuid[], region text, ch text,'
               ' expire int, n int, grp int, txt text);')
    for name, n, is_good in (('good', 16, True), ('big', 70, True),
                             ('one', 1, True), ('empty', 0, True),
                             ('bad', 16, False), ('worse', 40, False)):
        sql.append('CREATE TABLE %s %s' % (name, columns))
        if n:
            sql.append('INSERT INTO %s VALUES %s;' % (
                name, ', '.join(row(i, is_good) for i in range(n))))
    sql.append("""
CREATE INDEX ON good (grp, n);
CREATE INDEX ON big (n);
CREATE TABLE part (LIKE good) PARTITION BY LIST (grp);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN (0, 1);
CREATE TABLE part_b PARTITION OF part FOR VALUES IN (2);
CREATE TABLE part_c PARTITION OF part DEFAULT;
INSERT INTO part SELECT * FROM good;
CREATE DOMAIN short AS text CHECK (length(VALUE) < 60);
CREATE VIEW view_barrier WITH (security_barrier) AS SELECT id, addresses,
    region, ch, expire, n, grp, x.token AS txt
    FROM good, sw_create_guest_token(addresses) x WHERE n > 2;
CREATE VIEW view_good AS SELECT * FROM good WHERE n < 9;
CREATE VIEW view_call AS SELECT id, addresses, region, ch, expire, n, grp,
    (sw_create_guest_token(addresses, expire, region, ch)).token AS txt
    FROM good;
CREATE VIEW view_lateral AS SELECT t.id, addresses, region, ch, expire, n, grp,
    x.token AS txt
    FROM good t, sw_try_create_guest_token(addresses, NULL, region, ch) x;
-- counts the calls of what calls it
CREATE FUNCTION next(text) RETURNS int LANGUAGE sql AS $f$
    SELECT set_config('differential.' || $1, (coalesce(nullif(current_setting(
        'differential.' || $1, true), ''), '0')::int + 1)::text, true)::int
$f$;
CREATE FUNCTION vol(int) RETURNS int LANGUAGE plpgsql
    AS $f$ BEGIN RETURN differential.next('vol'); END $f$;
CREATE FUNCTION stab(int) RETURNS int STABLE LANGUAGE plpgsql AS $f$
BEGIN
    RETURN (SELECT count(*) FROM differential.s WHERE id <= $1);
END $f$;
-- These lie: they call themselves stable, but change what a node that reads
-- ahead goes by.  The last gives a limit, but only every other time.
CREATE FUNCTION meddle(int) RETURNS int STABLE LANGUAGE plpgsql AS $f$
DECLARE
    v_n int := differential.next('meddle');
BEGIN
    PERFORM set_config('sw_guest_token.max_concurrency', (ARRAY['1', '2',
                       '256', '1', '64'])[1 + v_n % 5], true),
            set_config('work_mem', (ARRAY['64', '1024'])[1 + v_n % 2], true),
            set_config('sw_guest_token.read_ahead', CASE v_n % 7 WHEN 0
                THEN 'off' ELSE current_setting('differential.read_ahead')
                END, true);
    RETURN $1;
END $f$;
CREATE FUNCTION meddle_early(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
    AS $f$ BEGIN RETURN differential.meddle($1); END $f$;
CREATE DOMAIN meddled AS int CHECK (meddle(VALUE) IS NOT NULL);
CREATE FUNCTION fickle(int) RETURNS int STABLE LANGUAGE plpgsql
    AS $f$ BEGIN RETURN $1 * (differential.next('fickle') % 2); END $f$;
CREATE FUNCTION token_of(uuid[], text) RETURNS text LANGUAGE plpgsql AS $f$
DECLARE
    v text;
BEGIN
    SELECT string_agg(x.token, ' ') INTO v
        FROM unnest($1) a,
             public.sw_try_create_guest_token(ARRAY[a], NULL, $2) x;
    RETURN v;
END $f$;
CREATE FUNCTION sql_token_of(uuid[], text) RETURNS text LANGUAGE sql
    AS 'SELECT (public.sw_try_create_guest_token($1, NULL, $2)).token';
CREATE FUNCTION rows_of(int) RETURNS SETOF good LANGUAGE plpgsql AS $f$
BEGIN
    RETURN QUERY SELECT id, addresses, region, ch, expire, n, grp, x.token
        FROM differential.good, public.sw_create_guest_token(addresses) x
        WHERE n < $1;
END $f$;
CREATE FUNCTION sql_rows_of(int) RETURNS SETOF good LANGUAGE sql AS $f$
    SELECT id, addresses, region, ch, expire, n, grp, x.token
        FROM differential.good, public.sw_create_guest_token(addresses) x
        WHERE n < $1
$f$;
CREATE FUNCTION lazy_rows_of(int) RETURNS SETOF good LANGUAGE sql STRICT AS $f$
    SELECT id, addresses, region, ch, expire, n, grp,
           (public.sw_create_guest_token(addresses)).token
        FROM differential.good WHERE n < $1
$f$;
CREATE FUNCTION log_row() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
    INSERT INTO log SELECT new.id, 'row ' || x.token
        FROM sw_try_create_guest_token(new.addresses, NULL, new.region) x;
    RETURN new;
END $f$;
CREATE FUNCTION set_row() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
    new.txt := 'before ' || new.token;
    IF new.n = 9 THEN
        RETURN NULL;
    END IF;
    RETURN new;
END $f$;
CREATE FUNCTION log_statement() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
    INSERT INTO log SELECT r.id, 'statement ' || x.token
        FROM new_rows r, sw_create_guest_token(r.addresses, NULL, r.region) x;
    INSERT INTO log SELECT r.id, (sw_try_create_guest_token(r.addresses)).token
        FROM new_rows r ORDER BY r.id DESC;
    RETURN NULL;
END $f$;
ANALYZE;
""")
    return '\n'.join(sql)


#
# The generator
#


class Case:
    """One or more statements: "before", "main", "after" to see the effect."""

    def __init__(self, rng):
        self.rng = rng
        self.form = ''
        self.before = []
        self.after = []
        self.main = []          # SQL, or the arguments of Session.portals()
        self.queries = []       # those in it
        self.expands = False    # (f(x)).* was expanded
        self.params = None      # a list where parameters may be used
        self.has_key = False    # the table target has one
        self.n_aliases = 0
        self.ctes = []

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, *choices):
        return self.rng.choice(choices)

    def alias(self, letter='q'):
        self.n_aliases += 1
        return '%s%d' % (letter, self.n_aliases)

    def number(self, low, high):
        n = self.rng.randint(low, high)
        if self.params is not None and self.chance(0.5):
            self.params.append(n)
            return '$%d::int' % len(self.params)
        return str(n)

    def take_params(self, text):
        """The text with those parameters that it uses, and their values."""
        values = []

        def take(match):
            values.append(self.params[int(match.group(1)) - 1])
            return '$%d::int' % len(values)

        text = re.sub(r'[$](\d+)::int', take, text)
        self.params = None
        return text, values

    # Calls

    def call(self, t, depth=1):
        rng = self.rng
        f = self.pick(PLAIN, PLAIN, PLAIN, TRY)
        const = "'{00000000-0000-4000-8000-00000000%04d}'::uuid[]" % \
            rng.randint(0, 9999)
        addresses = '%s.addresses' % t
        if self.chance(0.2):
            addresses = self.pick(
                const, t + '.addresses[1:1]',
                'ARRAY[%s.addresses[1]]' % t,
                'CASE WHEN %s.n > 3 THEN %s.addresses ELSE %s END' % (
                    t, t, const),
                '(SELECT g.addresses FROM good g WHERE g.id = %s.id)' % t,
                '(SELECT array_agg(a) FROM unnest(%s.addresses) a)' % t,
                'COALESCE(%s.addresses, %s)' % (t, const))
        expire = self.pick('NULL', t + '.expire', t + '.expire',
                           '%d + %s.id' % (FAR, t),
                           '%s.expire + %s' % (t, self.stable(t)))
        region = self.pick('NULL', t + '.region', t + '.region', t + '.region',
                           "'r' || %s.n" % t)
        ch = self.pick(
            'NULL', t + '.ch', t + '.ch', "'k' || " + self.number(1, 9),
            "'k' || " + self.stable(t),
            '(SELECT name FROM s WHERE s.id = %s.n)' % t)
        if self.chance(0.04):
            ch = 'vol(%s.id)::text' % t
        if depth > 0 and self.chance(0.06):
            ch = '(%s).token' % self.call(t, depth - 1)
        if self.chance(0.1):
            return "%s(%s, region => %s, expires_in => '1 hour')" % (
                f, addresses, region)
        if self.chance(0.1):
            return '%s(%s)' % (f, addresses)
        return '%s(%s, %s, %s, %s)' % (f, addresses, expire, region, ch)

    def stable(self, t):
        """An expression that claims to be stable, of type int."""
        return self.pick('stab(%s.n)', 'stab(%s.n)', 'meddle(%s.n)',
                         'meddle_early(%s.n)', 'meddle_early(2)',
                         '%s.n::meddled::int').replace('%s', t)

    def text(self, t, depth=1):
        """An expression with a call, of type text."""
        c = self.call(t)
        if self.chance(0.4):
            return '(%s).token' % c
        return self.pick(
            '(%s).refresh_token' % c,
            '(%s)::text' % c,
            'upper((%s).token)' % c,
            "(%s).token || ' ' || %s.n" % (c, t),
            "%s.n || (%s).token || (%s).refresh_token" % (t, c, c),
            "COALESCE((%s).token, 'none')" % c,
            'COALESCE(%s.txt, (%s).token)' % (t, c),
            'CASE WHEN %s.n > 4 THEN (%s).token END' % (t, c),
            "CASE WHEN (%s).token IS NULL THEN 'no' ELSE %s.txt END" % (c, t),
            'NULLIF((%s).token, (%s).token)' % (c, self.call(t)),
            'concat((%s).token, %s.txt, (%s).token)' % (c, t, self.call(t)),
            'ARRAY[(%s).token, %s.region]::text' % (c, t),
            'ROW(%s, %s.id)::text' % (c, t),
            'to_json(%s)::text' % c,
            '(((%s).token IS NULL) AND %s.n > 3)::text' % (c, t),
            '(%s IS NOT NULL)::text' % c,
            '((%s) = (%s))::text' % (c, c),
            '(SELECT token FROM %s)' % c,
            "(SELECT token FROM %s('{%032d}', ch => 'once'))" % (PLAIN, 7),
            '(SELECT max(name) FROM s) || (%s).token' % c,
            '(%s).token COLLATE "C"' % c,
            '(%s).token::short' % c,
            "split_part((%s).token, '|', 10 / (%s.id - 9))" % (c, t),
            "(SELECT x.token || 'x' FROM %s x)" % c,
            "(SELECT x.token FROM %s x WHERE x.token > '2')" % c,
            "(SELECT x::text FROM %s x)" % c,
            'ARRAY(SELECT x.token FROM %s x)::text' % c,
            '(EXISTS (SELECT FROM %s x WHERE x.token > %s.txt))::text' % (
                c, t),
            '(%s.txt IN (SELECT token FROM %s))::text' % (t, c),
            '(SELECT string_agg(x.token, %s.txt) FROM one o, %s x)' % (t, c),
            '(SELECT max((%s).token) FROM good g WHERE g.grp = %s.grp)' % (
                self.call('g'), t),
            'token_of(%s.addresses, %s.ch)' % (t, t),
            'sql_token_of(%s.addresses, %s.ch)' % (t, t),
            "(%s).token || vol(%s.id)" % (c, t),
            '(%s).token || %s' % (c, self.stable(t)))

    def expression(self, t):
        if self.chance(0.1):
            self.expands = True
            return '(%s).*' % self.call(t)
        if self.chance(0.3):
            return self.text(t)
        return self.pick(self.call(t), t + '.id', t + '.n', t + '.txt',
                         t + '.addresses', t, t + '.txt || %s.n' % t,
                         self.stable(t), 'vol(%s.n)' % t,
                         '(SELECT name FROM s WHERE s.id = %s.n)' % t)

    # What is selected from

    def source(self, depth):
        """An item of FROM with the eight columns; returns it and its name."""
        t = self.alias('t')
        if depth > 0 and self.chance(0.5):
            query = self.select(depth - 1)
            if self.chance(0.3):
                name = self.alias('c')
                self.ctes.append('%s AS %s(%s)' % (
                    name, self.pick('', 'MATERIALIZED ', 'NOT MATERIALIZED '),
                    query))
                return '%s %s' % (name, t), t
            return '(%s) %s' % (query, t), t
        if self.chance(0.03):
            name = self.alias('r')
            self.ctes.append(
                '%s (%s, txt) AS (SELECT * FROM good WHERE id < 3 UNION ALL'
                ' SELECT id + 1, addresses, region, ch, expire, n - 1, grp,'
                ' (%s) COLLATE "default" FROM %s WHERE n > 0)' % (
                    name, ', '.join(COLUMNS), self.text(name), name))
            return '%s %s' % (name, t), t
        if self.chance(0.12):
            return '%s(%s) %s' % (
                self.pick('rows_of', 'sql_rows_of', 'lazy_rows_of'),
                self.number(1, 9), t), t
        if self.chance(0.06):
            rows = ', '.join(
                "(%d, '{00000000-0000-4000-8000-00000000%04d}'::uuid[], 'us',"
                " 'v', NULL::int, %d, 1, 'z')" % (i, i, i % 4)
                for i in range(self.rng.randint(1, 6)))
            return '(VALUES %s) %s (%s, txt)' % (
                rows, t, ', '.join(COLUMNS)), t
        if self.chance(0.05):
            return ("(SELECT i AS id, ARRAY[lpad(i::text, 32, '0')::uuid] AS"
                    " addresses, 'us' AS region, NULL::text AS ch,"
                    ' i + %d AS expire, i %% 7 AS n, i %% 3 AS grp,'
                    " 'g' AS txt FROM generate_series(1, %s) i) %s" % (
                        FAR, self.number(0, 40), t)), t
        name = self.pick('good', 'good', 'good', 'big', 'part', 'view_good',
                         'view_call', 'view_lateral', 'view_barrier',
                         'one', 'empty', 'bad',
                         'worse')
        if name in ('good', 'bad') and self.chance(0.05):
            return '%s %s TABLESAMPLE BERNOULLI (60) REPEATABLE (7)' % (
                name, t), t
        return '%s %s' % (name, t), t

    def items(self, depth):
        """FROM; returns it, the row's name, and those of calls."""
        source, t = self.source(depth)
        x, y = self.alias('x'), self.alias('y')
        c = self.call(t)
        kind = self.rng.randrange(22)
        if kind < 5:
            return source, t, []
        if kind < 9:
            return '%s, %s %s' % (source, c, x), t, [x]
        if kind < 11:
            return '%s LEFT JOIN LATERAL %s %s ON %s' % (
                source, c, x, self.pick(
                    'true', 'true', "%s.token > '2'" % x,
                    t + '.n > 3')), t, [x]
        if kind == 11:
            return '%s JOIN s ON s.id = %s.n, %s %s' % (source, t, c, x), \
                t, [x]
        if kind == 12:
            return '%s LEFT JOIN s ON s.id = %s.n CROSS JOIN LATERAL %s %s' % (
                source, t, c, x), t, [x]
        if kind == 13:
            return ('%s, LATERAL (SELECT * FROM %s %s WHERE %s.token %s%s) %s'
                    % (source, c, y, y, self.pick('IS NOT NULL', "> '3'"),
                       self.pick('', ' LIMIT 1', ' OFFSET 0'), x)), t, [x]
        if kind == 14:
            return '%s, %s %s, %s(%s.addresses, NULL, %s.token) %s' % (
                source, c, x, TRY, t, x, y), t, [x, y]
        if kind == 15:
            other, u = self.source(depth)
            return '%s %s JOIN (%s CROSS JOIN %s %s) ON %s.id = %s.id' % (
                other, self.pick('', 'LEFT', 'RIGHT', 'FULL'), source, c, x,
                u, t), t, [x]
        if kind == 16:
            other, u = self.source(depth)
            return '%s CROSS JOIN %s %s %s JOIN %s ON %s.id = %s.id' % (
                source, c, x, self.pick('', 'LEFT', 'FULL'), other, u, t), \
                t, [x]
        if kind == 17:
            return '%s, %s(NULL, ch => %s) %s' % (
                source, TRY, self.pick("'k'", t + '.ch'), x), t, [x]
        if kind == 18:
            return ('%s, ROWS FROM (%s, generate_series(1, %s.n %% 3)) WITH '
                    'ORDINALITY %s (token, refresh_token, i, j)' % (
                        source, PLAIN + c[c.index('('):], t, x)), t, [x]
        if kind == 19:
            self.expands = True
            return '%s, LATERAL (SELECT (%s).*%s) %s' % (
                source, c, self.pick('', ' OFFSET 0'), x), t, [x]
        if kind == 20:
            return '%s, LATERAL (SELECT (%s).token%s) %s' % (
                source, c, self.pick('', ' OFFSET 0'), x), t, [x]
        other, u = self.source(0)
        return '%s JOIN %s ON %s.grp = %s.grp AND %s.n > 6, %s %s' % (
            source, other, u, t, u, c, x), t, [x]

    def where(self, t, calls, depth):
        quals = []
        for _ in range(self.pick(0, 0, 1, 1, 2)):
            if self.chance(0.15):
                quals.append(self.stable(t) + ' <> 5')
            elif calls and self.chance(0.4):
                quals.append('%s.token %s' % (self.rng.choice(calls),
                                              self.pick("> '2'", 'IS NOT NULL',
                                                        "<> '0'")))
            elif self.chance(0.2):
                quals.append(self.pick(
                    "(%s).token > '3'" % self.call(t),
                    'EXISTS (SELECT FROM %s x WHERE x.token > %s.txt)' % (
                        self.call(t), t),
                    '%s.id IN (SELECT g.id FROM good g, %s x)' % (
                        t, self.call('g')),
                    '%s.id NOT IN (SELECT g.id FROM (SELECT id, (%s).token'
                    ' FROM good g WHERE n > 7) g WHERE token IS NOT NULL)' % (
                        t, self.call('g')),
                    '%s IS NOT NULL' % self.text(t)))
            elif depth > 0 and self.chance(0.1):
                quals.append('%s.id %sIN (SELECT id FROM (%s) i)' % (
                    t, self.pick('', 'NOT '), self.select(depth - 1)))
            else:
                quals.append(self.pick(
                    '%s.n > ' % t + self.number(0, 8),
                    '%s.id < ' % t + self.number(1, 30),
                    '%s.grp = ' % t + self.number(0, 4),
                    '%s.id = ' % t + self.number(0, 30),
                    '1 / (%s.id - 14) < 1' % t,
                    '(SELECT count(*) FROM s) > ' + self.number(0, 7),
                    'vol(%s.n) %% 3 > 0' % t,
                    '%s.n IN (SELECT id FROM s)' % t,
                    "%s.txt IS DISTINCT FROM 'a1'" % t))
        return ' WHERE ' + ' AND '.join(quals) if quals else ''

    def tail(self, t):
        """ORDER BY, LIMIT, OFFSET, locks."""
        text = ''
        if self.chance(0.04):
            return ' ORDER BY %s.n, %s.id LIMIT fickle(%s)' % (
                t, t, self.number(1, 5))
        if self.chance(0.4):
            text += ' ORDER BY ' + self.pick(
                '%s.id' % t, '%s.n' % t, '%s.id DESC' % t,
                '%s.grp, %s.id DESC' % (t, t), '%s.txt, %s.id' % (t, t),
                '(%s).token' % self.call(t), '1')
        if self.chance(0.3):
            text += ' LIMIT ' + self.pick(
                self.number(0, 40), self.number(1, 4), 'NULL',
                '(SELECT count(*) FROM s)', '(SELECT vol(1) + 3)',
                'stab(%s)' % self.number(0, 9))
            if self.chance(0.1):
                text = text.replace(' LIMIT', ' FETCH FIRST') + \
                    ' ROWS WITH TIES' if 'ORDER' in text and \
                    text.split()[-1].isdigit() else text
        if self.chance(0.15):
            text += ' OFFSET ' + self.pick(
                self.number(0, 10), '(SELECT min(id) FROM s)')
        return text

    def select(self, depth):
        """A query with the eight columns."""
        if self.chance(0.08):
            return '(%s) %s (%s)' % (
                self.select(max(depth - 1, 0)),
                self.pick('UNION ALL', 'UNION ALL', 'UNION', 'EXCEPT ALL',
                          'INTERSECT'), self.select(0))
        items, t, calls = self.items(depth)
        columns = ', '.join('%s.%s' % (t, c) for c in COLUMNS)
        if self.chance(0.1):
            columns = columns.replace(t + '.n', self.stable(t) + ' AS n')
        txt = self.pick(self.text(t), t + '.txt', None)
        if txt is None:
            txt = '%s.token' % calls[0] if calls else \
                '(%s)::text' % self.stable(t)
        return 'SELECT %s%s, %s AS txt FROM %s%s%s' % (
            self.pick('', '', '', '', 'ALL ', 'DISTINCT '), columns, txt,
            items, self.where(t, calls, depth), '' if self.chance(0.3) else
            self.tail_of_distinct(t))

    def tail_of_distinct(self, t):
        """ORDER BY of DISTINCT takes what is selected."""
        text = ''
        if self.chance(0.5):
            text += ' ORDER BY ' + self.pick(t + '.id', '6, 1',
                                             t + '.id DESC', '8, 1')
        if self.chance(0.3):
            text += ' LIMIT ' + self.number(0, 30)
        return text

    def query(self, depth=None):
        """A query with any columns."""
        if depth is None:
            depth = self.pick(0, 1, 1, 2)
        query = self.any_query(depth)
        if self.ctes:
            query = 'WITH RECURSIVE %s %s' % (', '.join(self.ctes), query)
            self.ctes = []
        self.queries.append(query)
        return query

    def any_query(self, depth):
        rng = self.rng
        items, t, calls = self.items(depth)
        where = self.where(t, calls, depth)
        names = [x + '.token' for x in calls] + \
            [x for x in calls if self.chance(0.2)] or [t + '.id']
        kind = rng.randrange(20)
        if kind == 0:
            return "SELECT count(*), max(%s), string_agg(%s, ' ') FROM %s%s" \
                % (self.text(t), self.text(t), items, where)
        if kind == 1:
            return ('SELECT %s.grp, count(DISTINCT %s), array_agg(%s.id) FROM'
                    ' %s%s GROUP BY %s.grp %s' % (
                        t, self.text(t), t, items, where, t,
                        self.pick('', 'ORDER BY 1', 'HAVING count(*) > 2',
                                  'LIMIT 2')))
        if kind == 2:
            return 'SELECT %s, count(*) FROM %s%s GROUP BY 1 %s' % (
                self.text(t), items, where,
                self.pick('', 'ORDER BY 1', 'LIMIT 2'))
        if kind == 3:
            return 'SELECT %s%s, %s.n FROM %s%s' % (
                self.pick('DISTINCT ', 'DISTINCT ON (%s.n) ' % t),
                self.text(t), t, items, where)
        if kind == 4:
            return ('SELECT %s, %s OVER (%s ORDER BY %s.id) FROM %s%s%s' % (
                self.expression(t),
                self.pick('row_number()', 'lag(%s)' % self.text(t),
                          'count(%s)' % self.text(t), 'sum(%s.n)' % t),
                self.pick('', 'PARTITION BY %s.grp' % t), t, items, where,
                self.pick('', ' LIMIT ' + self.number(0, 20))))
        if kind == 5:
            return 'SELECT %s, %s FROM %s%s%s' % (
                self.expression(t), self.pick(
                    'generate_series(1, %s.n %% 4)' % t,
                    'unnest(%s.addresses)' % t), items, where, self.tail(t))
        if kind == 6:
            return '(SELECT %s.id, %s FROM %s%s%s) UNION ALL (%s)%s' % (
                t, self.text(t), items, where, self.tail(t),
                'SELECT g.id, %s FROM good g' % self.text('g'),
                self.pick('', ' ORDER BY 1', ' LIMIT ' + self.number(1, 40)))
        if kind == 7:
            return ('SELECT grp, n, (f).token, (f).refresh_token FROM (SELECT'
                    ' %s AS f, %s.grp, %s.n FROM %s%s%s) i' % (
                        self.call(t), t, t, items, where,
                        self.pick('', ' OFFSET 0')))
        if kind == 8:
            a, b = self.select(0), self.select(0)
            return 'SELECT * FROM (%s) a %s JOIN (%s) b USING (%s)%s' % (
                a, self.pick('', 'LEFT', 'FULL'), b,
                self.pick('id', 'n', 'id, n'),
                self.pick('', ' ORDER BY 1', ' LIMIT ' +
                          self.number(0, 20)))
        if kind == 9:
            return ('SELECT %s.id, i.* FROM %s, LATERAL (SELECT g.id, %s'
                    ' FROM good g WHERE g.grp = %s.n %s) i%s' % (
                        t, items, self.text('g'), t,
                        self.pick('', 'LIMIT 2', 'ORDER BY g.id'), where))
        expressions = [self.expression(t) for _ in
                       range(rng.randint(0, 3))]
        expressions += [rng.choice(names)] if calls or not expressions else []
        rng.shuffle(expressions)
        lock = ''
        if self.chance(0.2) and re.match('(good|big|part|bad) %s(,|$)' % t,
                                         items):
            lock = self.pick(' FOR UPDATE OF %s', ' FOR SHARE OF %s NOWAIT',
                             ' FOR UPDATE OF %s SKIP LOCKED') % t
        if kind == 10:
            return ('SELECT %s.grp, %s.n, count(*), max(%s) FROM %s%s GROUP BY'
                    ' GROUPING SETS ((%s.grp), (%s.n), ())' % (
                        t, t, self.text(t), items, where, t, t))
        if kind == 11:
            # a window that can end early
            return ('SELECT * FROM (SELECT %s, %s OVER (%s ORDER BY %s.id%s)'
                    ' AS r%s FROM %s%s) i WHERE r %s %s%s' % (
                        ', '.join(expressions),
                        self.pick('row_number()', 'rank()', 'dense_rank()',
                                  'count(*)', 'count(%s.id)' % t),
                        self.pick('', '', 'PARTITION BY %s.grp' % t), t,
                        self.pick('', ' DESC', ', %s.n' % t),
                        self.pick('', ', count(*) OVER (ORDER BY %s.n) AS r2'
                                  % t), items, where,
                        self.pick('<=', '<', '='), self.number(0, 7),
                        self.pick('', '', ' ORDER BY r',
                                  ' LIMIT ' + self.number(1, 9))))
        if kind == 12:
            return ('SELECT %s.grp, sum(%s.n) OVER w, max(%s) OVER (PARTITION'
                    ' BY %s.n), first_value(%s) OVER w FROM %s%s WINDOW w AS'
                    ' (PARTITION BY %s.grp ORDER BY %s.id ROWS BETWEEN %s'
                    ' PRECEDING AND CURRENT ROW)%s' % (
                        t, t, self.text(t), t, self.text(t), items, where, t,
                        t, self.pick('1', 'UNBOUNDED'), self.pick(
                            '', ' LIMIT ' + self.number(0, 9))))
        return 'SELECT %s FROM %s%s%s%s' % (
            ', '.join(expressions), items, where, self.tail(t), lock)

    # Statements that change tables

    def make_target(self):
        sql = ['CREATE TEMP TABLE log (id int, what text,'
               ' seq serial)']
        columns = ('(LIKE good, token text, refresh text,'
                   ' pair sw_guest_token, seq serial)')
        if self.chance(0.2):
            sql.append('CREATE TEMP TABLE target %s PARTITION BY LIST (grp)'
                       % columns)
            sql.append('CREATE TEMP TABLE target_a PARTITION OF target'
                       ' FOR VALUES IN (0, 2)')
            sql.append('CREATE TEMP TABLE target_b PARTITION OF target'
                       ' DEFAULT')
        else:
            sql.append('CREATE TEMP TABLE target %s' % columns)
            self.has_key = self.chance(0.5)
            if self.has_key:
                sql.append('ALTER TABLE target ADD PRIMARY KEY (id)')
        if self.chance(0.15):
            sql.append('ALTER TABLE target ADD CHECK (%s)' % self.pick(
                "token < '20'", 'token IS NULL OR n < 9'))
        sql.append('INSERT INTO target SELECT %s, txt FROM %s' % (
            ', '.join(COLUMNS), self.pick('good', 'good', 'good', 'bad',
                                          'worse', 'big')))
        trigger = 'CREATE TRIGGER g %s ON target %s'
        if self.chance(0.15):
            sql.append(trigger % ('AFTER UPDATE', 'REFERENCING NEW TABLE AS'
                                  ' new_rows EXECUTE FUNCTION'
                                  ' log_statement()'))
            sql.append(sql[-1].replace('UPDATE', 'INSERT')
                       .replace('TRIGGER g', 'TRIGGER h'))
        elif self.chance(0.1):
            sql.append(trigger % (
                self.pick('BEFORE', 'AFTER') + ' INSERT OR UPDATE',
                'FOR EACH ROW EXECUTE FUNCTION log_row()'))
        elif self.chance(0.1):
            sql.append(trigger % ('BEFORE INSERT OR UPDATE',
                                  'FOR EACH ROW EXECUTE FUNCTION set_row()'))
        elif self.chance(0.1):
            sql.append(trigger % (
                'BEFORE INSERT OR UPDATE', 'FOR EACH ROW EXECUTE FUNCTION '
                "sw_guest_token_trigger('addresses', 'txt', 'refresh', '',"
                " 'region')"))
        if self.chance(0.5):
            sql.append('ANALYZE target')
        self.before += sql
        self.after += ['SELECT * FROM target ORDER BY id, seq',
                       'SELECT * FROM log ORDER BY seq']

    def returning(self, others=()):
        if self.chance(0.5):
            return ''
        return ' RETURNING ' + self.pick(
            't.id, t.token', 't.*', 't.id, %s' % self.text('t'),
            *('t.id, %s' % o for o in others))

    def change(self):
        """A statement that changes the table target."""
        rng = self.rng
        where = self.where('t', [], 0)
        kind = rng.randrange(13)
        c = self.call('t')
        if kind == 0:
            return 'UPDATE target t SET token = %s%s%s' % (
                self.text('t'), where, self.returning())
        if kind == 1:
            return ('UPDATE target t SET (token, refresh) = (SELECT token,'
                    ' refresh_token FROM %s x%s)%s%s%s' % (
                        c, self.pick('', " WHERE x.token > '2'"),
                        self.pick('', ', txt = vol(t.n)', ', n = t.n + 1',
                                  ", grp = 2"),
                        where, self.returning()))
        if kind == 2:
            return ('UPDATE target t SET token = (%s).token, refresh ='
                    ' (%s).refresh_token, pair = %s(t.addresses)%s%s' % (
                        c, c, PLAIN, where, self.returning()))
        if kind in (3, 4):
            source, s = self.source(self.pick(0, 1))
            text = ('UPDATE target t SET token = x.token, refresh = %s FROM'
                    ' %s, %s x WHERE t.id = %s.%s%s' % (
                        self.pick('x.refresh_token', s + '.txt', 't.txt',
                                  self.text(s)),
                        source, self.call(s), s,
                        self.pick('id', 'id', 'n'),
                        self.returning(['x.token', s + '.id'])))
            return self.with_ctes(text)
        if kind == 5:
            text = ('INSERT INTO target AS t (%s, txt) %s %s' % (
                ', '.join(COLUMNS), self.select(1),
                self.pick('', '', ' ON CONFLICT DO NOTHING')))
            return self.with_ctes(text + self.returning())
        if kind == 6:
            source, s = self.source(1)
            text = ('INSERT INTO target AS t (id, addresses, n, grp, token,'
                    ' refresh) SELECT 100 + %s.id, %s.addresses, %s.n, %s.grp,'
                    ' x.token, x.refresh_token FROM %s, %s x%s' % (
                        s, s, s, s, source, self.call(s), self.returning()))
            return self.with_ctes(text)
        if kind == 7 and self.has_key:
            return ('INSERT INTO target AS t (id, addresses, grp, token)'
                    ' SELECT id, addresses, grp, (%s).token FROM %s r'
                    ' ON CONFLICT (id) DO UPDATE SET token = %s, n ='
                    ' excluded.id%s' % (
                        self.call('r'), self.pick('good', 'bad'),
                        self.text('t'), self.returning()))
        if kind == 8:
            source, s = self.source(1)
            return self.with_ctes(
                'DELETE FROM target t USING %s, %s x WHERE t.id = %s.id AND'
                " x.token > '%d'%s" % (
                    source, self.call(s), s, rng.randint(0, 4),
                    self.returning(['x.token'])))
        if kind == 9:
            return 'DELETE FROM target t%s RETURNING %s' % (where,
                                                            self.text('t'))
        if kind == 10:
            return ('MERGE INTO target t USING (%s) r ON t.id = r.%s'
                    ' WHEN MATCHED %sTHEN %s WHEN NOT MATCHED THEN INSERT'
                    ' (id, addresses, grp, token) VALUES'
                    ' (r.id, r.addresses, r.grp, %s)' % (
                        self.with_ctes(self.select(1)), self.pick('id', 'n'),
                        self.pick('', 'AND t.n > 4 ', "AND r.txt > '2' "),
                        self.pick('UPDATE SET token = r.txt',
                                  'UPDATE SET token = %s' % self.text('r'),
                                  'UPDATE SET token = %s' % self.text('t'),
                                  'DELETE'), self.text('r')))
        if kind == 11:
            return ('WITH w AS (UPDATE target t SET token = %s%s RETURNING'
                    ' %s, txt) SELECT w.id, %s FROM w, %s x%s' % (
                        self.text('t'), where,
                        ', '.join('t.%s' % c for c in COLUMNS),
                        self.text('w'), self.call('w'),
                        self.pick('', ' LIMIT ' + self.number(0, 10))))
        rows = []
        for i in range(rng.randint(1, 5)):
            a = "'{00000000-0000-4000-8000-00000000000%d}'" % i
            rows.append("(%d, %s, (%s(%s, ch => 'v%d')).token, %d)" % (
                200 + i, a, PLAIN, a, i, i))
        return ('INSERT INTO target AS t (id, addresses, token, grp) VALUES'
                ' %s%s' % (', '.join(rows), self.returning()))

    def with_ctes(self, text):
        if self.ctes:
            text = 'WITH RECURSIVE %s %s' % (', '.join(self.ctes), text)
            self.ctes = []
        return text

    # How statements are run

    def statement(self):
        """A query, or what changes the table target and returns rows."""
        if self.chance(0.2):
            self.make_target()
            for _ in range(50):
                text = self.change()
                if 'RETURNING' in text and not text.startswith('WITH'):
                    self.queries.append(text)
                    return text
        return self.query()

    def generate(self):
        forms = [m for m in dir(Case) if m.startswith('form_')]
        weights = [6 if m == 'form_query' else 5 if m == 'form_change' else 1
                   for m in forms]
        form = self.rng.choices(forms, weights)[0]
        self.form = form[5:]
        for name in ('hashjoin', 'mergejoin', 'nestloop', 'material', 'sort',
                     'hashagg', 'memoize', 'seqscan', 'indexscan',
                     'bitmapscan', 'incremental_sort'):
            if self.chance(0.12):
                self.before.append('SET LOCAL enable_%s = off' % name)
        if self.chance(0.5):
            self.before.append('SET LOCAL sw_guest_token.max_concurrency = %d'
                               % self.pick(1, 2, 3, 64))
        if self.chance(0.1):
            self.before.append("SET LOCAL work_mem = '64kB'")
        if self.chance(0.02):
            self.before += ['SET LOCAL jit = on',
                            'SET LOCAL jit_above_cost = 0']
        if self.chance(0.1):
            self.before += ['SET LOCAL parallel_setup_cost = 0',
                            'SET LOCAL parallel_tuple_cost = 0',
                            'SET LOCAL min_parallel_table_scan_size = 0',
                            'SET LOCAL parallel_leader_participation = off',
                            'SET LOCAL max_parallel_workers_per_gather = 1']
        getattr(self, form)()
        return self

    def form_query(self):
        self.main = [self.query()]

    def form_change(self):
        self.make_target()
        self.main = [self.change()]

    def form_portal(self):
        statements = []
        for _ in range(self.pick(1, 1, 2)):
            self.params = []
            statements.append(self.take_params(self.statement()))
            if self.before[-1:] and 'target' in self.before[-1]:
                break
        portions = [self.pick(1, 2, 5, 20, 0) for _ in
                    range(self.pick(1, 2, 5))] + self.pick([0], [])
        self.main = [(statements, portions)]

    def form_prepared(self):
        self.params = []
        query, params = self.take_params(self.statement())
        self.before.append('SET LOCAL plan_cache_mode = %s' % self.pick(
            'force_generic_plan', 'force_custom_plan', 'auto'))
        values = ', '.join(map(str, params))
        self.main = ['DEALLOCATE ALL', 'PREPARE p AS ' + query]
        for _ in range(self.pick(1, 2, 2)):
            self.main.append('EXECUTE p%s' % (values and '(%s)' % values))
            if self.chance(0.3):
                # planned with read_ahead on, run with it off
                self.main.append('SET LOCAL sw_guest_token.read_ahead = off')

    def form_cursor(self):
        self.main = ['DECLARE c %sCURSOR %sFOR %s' % (
            self.pick('', '', '', 'SCROLL ', 'NO SCROLL ', 'INSENSITIVE '),
            self.pick('', '', '', 'WITH HOLD '), self.query())]
        for _ in range(self.pick(1, 3)):
            self.main.append('FETCH %s FROM c' % self.pick(
                '1', '3', '10', 'ALL', 'FORWARD 5', '0'))
            if self.chance(0.1):
                self.main.append('MOVE 2 FROM c')
            if self.chance(0.1):
                self.main += ['SAVEPOINT a', WRONG, 'ROLLBACK TO a']
        self.main.append('CLOSE c')

    def block(self, text):
        """PL/pgSQL; functions read portions of a loop's rows, DO does not."""
        if self.chance(0.3):
            return ['DO $do$%s $do$' % text]
        return ['CREATE FUNCTION pg_temp.g() RETURNS void LANGUAGE plpgsql'
                ' AS $do$%s $do$' % text, 'SELECT pg_temp.g()']

    def form_loop(self):
        n = self.rng.randint(1, 40)
        self.main = self.block("""
DECLARE v_r record; v_i int := 0;
BEGIN
    FOR v_r IN %s LOOP
        v_i := v_i + 1;
        RAISE NOTICE '%%', v_r;
        EXIT WHEN v_i >= %d;
    END LOOP;
EXCEPTION WHEN invalid_parameter_value OR system_error THEN
    RAISE NOTICE 'caught %% %%', SQLSTATE, SQLERRM;
END""" % (self.pick('%s', '%s', 'EXECUTE $q$%s$q$') % self.statement(), n))

    def form_nested_loop(self):
        self.main = self.block("""
DECLARE v_r record; v_t text; v_i int := 0;
BEGIN
    FOR v_r IN %s LOOP
        v_i := v_i + 1;
        BEGIN
            SELECT string_agg(i::text, ' ') INTO v_t FROM (%s) i;
            RAISE NOTICE '%% %%', v_r, v_t;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'caught %% %%', SQLSTATE, SQLERRM;
        END;
        EXIT WHEN v_i >= %d;
    END LOOP;
END""" % (self.query(), self.query(0), self.rng.randint(1, 6)))

    def form_open(self):
        """A cursor of PL/pgSQL, with errors that are caught in between."""
        steps = []
        for _ in range(self.rng.randint(1, 5)):
            steps.append(self.pick(
                "FETCH c INTO v_r; RAISE NOTICE '%', v_r;",
                "FETCH c INTO v_r; RAISE NOTICE '%', v_r;", 'MOVE c;',
                'MOVE FORWARD 3 FROM c;',
                "FOR v_i IN 1..12 LOOP FETCH c INTO v_r; EXIT WHEN NOT FOUND;"
                " RAISE NOTICE '%', v_r; END LOOP;",
                "BEGIN FETCH c INTO v_r; RAISE NOTICE '%', v_r;"
                " PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN END;",
                'BEGIN PERFORM i FROM (%s) i; EXCEPTION WHEN OTHERS THEN'
                " RAISE NOTICE 'caught %% %%', SQLSTATE, SQLERRM; END;"
                % self.query(0),
                "PERFORM set_config('sw_guest_token.max_concurrency', '5',"
                ' true);'))
        self.main = self.block("""
DECLARE c refcursor; v_r record;
BEGIN
    OPEN c %sFOR %s;
    %s
    CLOSE c;
END""" % (self.pick('', '', 'NO SCROLL '), self.query(), ' '.join(steps)))

    def form_into(self):
        self.main = self.block("""
DECLARE v_r record;
BEGIN
    FOR v_i IN 1..2 LOOP
        EXECUTE $q$%s$q$ INTO %sv_r;
        RAISE NOTICE '%%', v_r;
        PERFORM i FROM (%s) i;
    END LOOP;
END""" % (self.statement(), self.pick('', '', 'STRICT '), self.query(0)))

    def form_function(self):
        """Rows through a function; maybe not all of them are read."""
        self.before.append(
            'CREATE FUNCTION pg_temp.f() RETURNS SETOF good LANGUAGE %s' %
            self.pick('plpgsql AS $f$ BEGIN RETURN QUERY %s; %sEND $f$',
                      'sql AS $f$ %s %s$f$',
                      'sql STABLE AS $f$ %s %s$f$',
                      'sql STRICT AS $f$ %s %s$f$') % (
                self.with_ctes(self.select(1)), ''))
        self.main = [self.pick('SELECT * FROM pg_temp.f()',
                               'SELECT pg_temp.f()',
                               'SELECT pg_temp.f() LIMIT 3',
                               'SELECT * FROM pg_temp.f() LIMIT 3',
                               'SELECT (f).txt FROM (SELECT pg_temp.f()) i',
                               'SELECT s.id, f.txt FROM s, pg_temp.f() f')]

    def form_scalar(self):
        """A query as an expression, from which one or two rows are read."""
        query = 'SELECT txt FROM (%s) i' % self.with_ctes(self.select(1))
        self.main = ['SELECT ' + self.pick(
            'ARRAY(%s)', 'EXISTS (%s)', '(%s LIMIT 1)', '(%s)',
            "'x' IN (%s)", "'x' > ALL (%s)", "'1' < ANY (%s)") % query +
            self.pick('', ' FROM s', ' FROM s LIMIT 2')]

    def form_create(self):
        self.main = [self.pick(
            'CREATE TEMP TABLE made AS %s', 'CREATE TABLE made AS %s',
            'CREATE TEMP TABLE made AS %s WITH NO DATA') %
            self.with_ctes(self.select(1))]
        self.after = ['SELECT * FROM made']

    def form_copy(self):
        self.main = ['COPY (%s) TO STDOUT' % self.statement()]

    def form_explain(self):
        # run, but not shown, because its times differ
        self.main = ['DO $do$ BEGIN EXECUTE $q$EXPLAIN ANALYZE %s$q$;'
                     ' END $do$' % self.statement()]

    def form_two(self):
        self.main = ['%s; %s' % (self.query(), self.query())]


#
# The comparison
#


class Result:
    def __init__(self):
        self.lines = []
        self.requests = 0
        self.in_flight = 0
        self.refusals = set()
        self.state = ''

    def first_error(self):
        """Which line is the first error, if any is, and its SQLSTATE."""
        for i, line in enumerate(self.lines):
            match = re.match(r'(ERROR|NOTICE 00000 caught) (\w{5}) ', line)
            if match and match.group(2) != '22P02':     # that of WRONG
                return i, match.group(2)
        return len(self.lines), ''


class Differential:
    def __init__(self, seed):
        self.seed = seed
        self.url = start_api()
        self.session = None
        self.n_runs = 0

    def prepare(self):
        self.connect()
        for line in self.session.query(make_data(random.Random(self.seed))):
            if line.startswith('ERROR'):
                sys.exit(line)
        self.session.socket.close()
        self.connect()

    def connect(self):
        for _ in range(100):
            try:
                # a server that has crashed needs some time
                self.session = Session()
                break
            except (EOFError, OSError):
                time.sleep(0.3)
        self.session.query("""
SET search_path = differential, public;
SET client_min_messages = notice;
SET sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000';
SET sw_guest_token.api_token_file = '';
SET sw_guest_token.api_token = 'PTsandbox';
SET sw_guest_token.max_retries = 0;
SET statement_timeout = '60s';
SET max_parallel_workers_per_gather = 0;
SET jit = off;
""")

    def run(self, case, read_ahead):
        session, result = self.session, Result()
        Api.delay = read_ahead == 'on'
        path = self.n_runs % N_PATHS
        self.n_runs += 1
        Api.requests[path] = Api.most_in_flight[path] = 0
        Api.refusals[path] = set()
        begin = ['BEGIN', "SET LOCAL sw_guest_token.base_url = '%s/%d'" % (
            self.url, path)]
        begin += case.before
        begin += self.read_ahead(read_ahead)
        lines = [line for line in session.query('; '.join(begin))
                 if line.startswith('ERROR')]
        for step in case.main:
            lines += session.query(step) if isinstance(step, str) else \
                session.portals(*step)
            if lines[-1:] and lines[-1].startswith('ERROR') and \
                    step != WRONG:
                break
        result.requests = Api.requests[path]
        result.in_flight = Api.most_in_flight[path]
        result.refusals = Api.refusals[path]
        for line in lines:
            if line.startswith('ERROR') and '22P02' not in line:
                result.state = line.split()[1]
        if not result.state:
            for step in case.after:
                lines += session.query(step)
        session.query('ROLLBACK')
        result.lines = lines
        return result

    @staticmethod
    def read_ahead(value):
        return ['SET LOCAL %s.read_ahead = %s' % (prefix, value)
                for prefix in ('sw_guest_token', 'differential')]

    def has_stacked_nodes(self, case):
        """Whether a node reads ahead of another, as EXPLAIN shows it."""
        query, lines = self.session.query, []
        query('; '.join(['BEGIN', *case.before, *self.read_ahead('on')]))
        for step in case.main:
            if '$do$' in step:
                statements = [(sql, []) for sql in case.queries]
            elif isinstance(step, str):
                statements = [(step, [])]
            else:
                statements = step[0]
            for sql, params in statements:
                for i, param in enumerate(params):
                    sql = sql.replace('$%d' % (i + 1), "'%s'" % param)
                is_plain = sql.startswith(('DEALLOCATE', 'PREPARE', 'SET'))
                lines += query(
                    ('' if is_plain else 'EXPLAIN (COSTS OFF) ') + sql)
        query('ROLLBACK')
        nodes = []              # around the line: indentation, kind
        for line in lines:
            match = re.match('( *)(->  )?([A-Z].*)', line)
            if match and (match.group(2) or not match.group(1)):
                indent, kind = len(match.group(1)), match.group(3)
                nodes = [node for node in nodes if node[0] < indent]
                if kind == NODE and NODE in (node[1] for node in nodes):
                    return True
                nodes.append((indent, kind))
        return False

    def difference(self, case, off, on):
        """What is wrong, in a word."""
        # after a 401, what has not been sent is refused, too
        if off.refusals and not off.state:
            return ''
        # a node that reads ahead of another raises the other's error when it
        # reads the row, maybe before it has handed on a row that fails further
        # up
        i, state = on.first_error()
        if on.lines != off.lines and on.lines[:i] == off.lines[:i] and \
                state in RAISED and self.has_stacked_nodes(case):
            return ''
        if off.state:
            # some of the rows before an error may be missing
            n = len(on.lines) - 1
            is_prefix = on.lines[:n] == off.lines[:n]
            if on.lines[-1:] != off.lines[-1:]:
                # a refusal that is the result of a call that tries ends the
                # sending, and then a call that does not try fails with it,
                # before the row that fails when all are sent
                if on.state in off.refusals & on.refusals and is_prefix:
                    return ''
                # rows that are read ahead may fail first: division by zero
                return 'error' if on.state != '22012' else ''
            # and after a refusal, those that are there may have no token
            return '' if is_prefix or off.refusals else 'rows'
        # rows may also fail before an error that is caught
        if on.state == '22012' and any(' caught ' in line
                                       for line in off.lines):
            return ''
        if off.lines != on.lines:
            return 'rows'
        if off.in_flight > 1:
            return 'requests in flight, though off'
        # a caught error may have come while other requests were in flight
        if any(' caught ' in line for line in off.lines):
            return ''
        if on.requests > off.requests:
            return 'more requests'
        if on.requests < off.requests and not case.expands:
            return 'fewer requests'
        return ''


def show(number, seed, case, what, results):
    print('\nDIFFERENCE: %s, in --seed %d --only %d (%s)' % (
        what, seed, number, case.form))
    for step in case.before + case.main:
        print('%s;' % (step,))
    for name, result in results:
        print('--- read_ahead %s: %d requests' % (name, result.requests))
        print('\n'.join(result.lines))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--seed', type=int,
                        default=random.SystemRandom().randrange(10 ** 6))
    parser.add_argument('--only', type=int)
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('queries', type=int, nargs='?', default=1000)
    args = parser.parse_args()
    print('seed %d' % args.seed, flush=True)
    differential = Differential(args.seed)
    differential.prepare()
    counts = collections.defaultdict(collections.Counter)
    n_different = 0
    numbers = range(args.queries) if args.only is None else [args.only]
    for number in numbers:
        if number % 1000 == 999:
            # PL/pgSQL keeps what it compiled of functions that are gone
            differential.session.socket.close()
            differential.connect()
        case = Case(random.Random('%d %d' % (args.seed, number))).generate()
        off = on = None
        try:
            off = differential.run(case, 'off')
            on = differential.run(case, 'on')
            what = differential.difference(case, off, on)
        except (EOFError, OSError) as error:
            what = str(error)
            on = on or Result()
            off = off or Result()
            differential.connect()
        is_refused = off.state[:2] in ('42', '0A') and \
            off.state not in ('42501', '42704')     # a 403 and a 404 are these
        if what or args.verbose or args.only is not None:
            show(number, args.seed, case, what or 'none',
                 (('off', off), ('on', on)))
        n_different += bool(what)
        for kind in (case.form, 'all'):
            counts[kind].update({
                'n': 1, 'errors': bool(off.state), 'refused': is_refused,
                'in flight': on.in_flight > 1, 'requests': off.requests})
    print('%-12s %7s %7s %7s %9s %9s' % (
        'kind', 'number', 'errors', 'refused', 'in flight', 'requests'))
    for kind in sorted(counts, key=lambda kind: (kind == 'all', kind)):
        c = counts[kind]
        print('%-12s %7d %7d %7d %9d %9d' % (
            kind, c['n'], c['errors'], c['refused'], c['in flight'],
            c['requests']))
    print('%d differences' % n_different)
    sys.exit(n_different > 0)


if __name__ == '__main__':
    main()
