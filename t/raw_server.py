#!/usr/bin/python3
"""Answers in ways that no HTTP library would.

    raw_server.py FILE
        FILE is a JSON object that maps a name to an object with the members
        "bytes" (in hexadecimal) and "end": "close", "reset", "keep" until the
        client goes, "notify" to end TLS alone, "next" for another request,
        "leave" to stop listening and close, or a number: that many TLS
        messages that announce a new key, and then "keep".  A request to the
        path /NAME/... gets that answer, or the next one of a list.  With
        "after": N, it is held back until N connections have been made.  With
        "together": N, it is held back until N requests wait for it.  With
        "stray", those bytes follow as soon as another connection is made,
        which is then closed.  With the member "deaf", that connection is the
        last.

    raw_server.py FILE CERTIFICATE KEY
        HTTP/2 over TLS.  FILE is a JSON object whose member "*" says what is
        done to every stream; see serve_http2().  With "times", it is done
        only to that many streams, and all others get a pair of tokens.  With
        "spare": N, the first N streams get that, too.  With "stray", these
        bytes follow each pair, as above.  With "pause", each pair comes that
        many seconds after the last.  With "streams": N, a connection may
        have N streams at a time.
        With "ill": N, the streams of the first N connections get a 503.
        With "uses": N, a connection takes no more streams after its Nth pair.
        With "mixed", every second connection is HTTP/1.1, and gets pairs, too;
        with "gap", their headers, or with "cut" that many bytes, come at
        once, and the rest that many seconds later.  In a pair, the token is
        the request's region, or "a".
        With "http1", it is HTTP/1.1 over TLS, as above.  If the member "hang"
        is N, the handshakes of all connections after the first N hang; if it
        is -N, those of the first N do.  With "handshake", each handshake takes
        that many seconds more.

Prints its port, then one line for each request.  Ends with its standard
input.
"""

import ctypes
import ctypes.util
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time

FRAME = {'headers': 1, 'rst_stream': 3, 'settings': 4, 'goaway': 7, 'data': 0}


def say(text):
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def pair(request):
    """A pair of tokens for a request's body."""
    token = json.loads(request).get('region', 'a')
    return json.dumps({'token': token, 'refresh_token': 'b'}).encode()


def finish(connection, end):
    """Ends a connection as the answer says."""
    if end == 'notify':
        # sends our end of TLS, and waits for the client's
        try:
            connection.unwrap()
        except OSError:
            time.sleep(3600)
    if end == 'reset':
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                              struct.pack('ii', 1, 0))
    elif end == 'keep' or isinstance(end, int):
        if isinstance(end, int):
            # Python has no function for it: to its object belongs an SSL
            ssl_of = ctypes.c_void_p.from_address(id(connection._sslobj) + 24)
            libssl = ctypes.CDLL(ctypes.util.find_library('ssl'))
            for _ in range(end):
                libssl.SSL_key_update(ssl_of, 0)
                libssl.SSL_do_handshake(ssl_of)
        while connection.recv(65536):
            pass
    else:
        # A client that has more to send must not be reset.
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        try:
            while connection.recv(65536):
                pass
        except OSError:
            pass
    connection.close()


def serve_http1(connection, answers, request=b''):
    """One request, one answer, and usually the end."""
    while b'\r\n\r\n' not in request:
        some = connection.recv(65536)
        if not some:
            return
        request += some
    head, body = request.split(b'\r\n\r\n', 1)
    length = next(int(line.split(b':')[1]) for line in head.split(b'\r\n')
                  if line.lower().startswith(b'content-length'))
    while len(body) < length:
        body += connection.recv(65536)
    body, rest = body[:length], body[length:]
    if 'mixed' in answers:
        answer = pair(body)
        head = (b'HTTP/1.1 201 Created\r\n'
                b'Content-Type: application/json\r\n'
                b'Content-Length: %d\r\n\r\n' % len(answer))
        if 'gap' in answers:
            cut = answers.get('cut', len(head))
            connection.sendall((head + answer)[:cut])
            time.sleep(answers['gap'])
            connection.sendall((head + answer)[cut:])
        else:
            time.sleep(answers.get('pause', 0))
            connection.sendall(head + answer)
        serve_http1(connection, answers, rest)
        return
    name = head.split(b' ')[1].split(b'/')[1].decode()
    say(name)
    answer = answers[name]
    if isinstance(answer, list):
        answer = answer.pop(0)
    while answers['connections'] < answer.get('after', 0):
        time.sleep(0.01)
    if 'gate' in answer:
        answer['gate'].wait()
    # noted first, because the client may be quicker than this process
    if 'stray' in answer:
        answers['strays'].append((connection, bytes.fromhex(answer['stray'])))
    connection.sendall(bytes.fromhex(answer['bytes']))
    if answer['end'] == 'next':
        serve_http1(connection, answers, rest)
        return
    if answer['end'] == 'leave':
        answers['listener'].shutdown(socket.SHUT_RDWR)
        answers['listener'].close()
    finish(connection, answer['end'])


def frame(kind, flags, stream, payload=b''):
    return (struct.pack('>I', len(payload))[1:] +
            bytes((FRAME[kind], flags)) + struct.pack('>I', stream) + payload)


def serve_http2(connection, answers, is_ill):
    """Reads frames, and does to each stream what FILE says."""
    data = b''
    accepted = set()
    pairs = 0

    def need(n):
        nonlocal data
        while len(data) < n:
            some = connection.recv(65536)
            if not some:
                raise EOFError
            data += some
        head, data = data[:n], data[n:]
        return head

    need(len(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))
    settings = b''
    if answers['*'] == 'window_0':
        # SETTINGS_INITIAL_WINDOW_SIZE
        settings += struct.pack('>HI', 4, 0)
    if 'streams' in answers:
        # SETTINGS_MAX_CONCURRENT_STREAMS
        settings += struct.pack('>HI', 3, answers['streams'])
    connection.sendall(frame('settings', 0, 0, settings))
    while True:
        head = need(9)
        length = int.from_bytes(head[:3], 'big')
        kind = head[3]
        stream = int.from_bytes(head[5:9], 'big') & 0x7fffffff
        payload = need(length)
        if kind == FRAME['data'] and head[4] & 1 and stream in accepted:
            if 'stray' in answers:
                answers['strays'].append((connection,
                                          bytes.fromhex(answers['stray'])))
            time.sleep(answers.get('pause', 0))
            if is_ill:
                connection.sendall(frame('headers', 5, stream, b'\x08\x03503'))
                continue
            pairs += 1
            if pairs == answers.get('uses'):
                # those that are under way are still served
                connection.sendall(frame('goaway', 0, 0,
                                         struct.pack('>II', 2**31 - 1, 0)))
            # :status 201 is not in the static table, the name content-type is
            connection.sendall(
                frame('headers', 4, stream,
                      b'\x08\x03201\x0f\x10\x10application/json') +
                frame('data', 1, stream, pair(payload)))
        if kind != FRAME['headers']:
            continue
        say('*')
        action = answers['*']
        if answers.get('spare', 0) > 0:
            answers['spare'] -= 1
            accepted.add(stream)
            continue
        if 'times' in answers:
            answers['times'] -= 1
            if answers['times'] < 0:
                accepted.add(stream)
                continue
        if action == 'rst_stream':
            connection.sendall(frame('rst_stream', 0, stream,
                                     struct.pack('>I', 2)))
        elif action == 'refused_stream':
            connection.sendall(frame('rst_stream', 0, stream,
                                     struct.pack('>I', 7)))
        elif action == 'refuse_then_eat':
            answers['refused'] = not answers.get('refused')
            if not answers['refused']:
                finish(connection, 'close')
                return
            connection.sendall(frame('rst_stream', 0, stream,
                                     struct.pack('>I', 7)))
        elif action == 'goaway':
            connection.sendall(frame('goaway', 0, 0,
                                     struct.pack('>II', stream, 2)))
            finish(connection, 'close')
            return
        elif action == 'turn_away':
            # this stream and all later ones are left unprocessed
            connection.sendall(frame('goaway', 0, 0,
                                     struct.pack('>II', 0, 0)))
            finish(connection, 'close')
            return
        elif action == 'empty_data':
            connection.sendall(frame('headers', 4, stream, b'\x08\x03201'))
            while True:
                connection.sendall(frame('data', 0, stream) * 1000)
        elif action == 'mute':
            while connection.recv(65536):
                pass
            return
        elif action == 'eat':
            # close only after other requests had the time to arrive
            threading.Timer(0.25, finish, (connection, 'close')).start()
        elif action == 'garbage':
            connection.sendall(b'\xff' * 100)
        elif action == 'close':
            finish(connection, 'close')
            return
        elif action == 'cut':
            connection.sendall(
                frame('headers', 4, stream, b'\x08\x03201') +
                frame('data', 0, stream, b'{"token":'))
            finish(connection, 'close')
            return
        elif action == 'rst_in_body':
            connection.sendall(
                frame('headers', 4, stream, b'\x08\x03201') +
                frame('data', 0, stream, b'{"token":') +
                frame('rst_stream', 0, stream, struct.pack('>I', 2)))


def main():
    with open(sys.argv[1], encoding='ascii') as file:
        answers = json.load(file)
    answers['connections'] = 0
    answers['strays'] = []
    for answer in answers.values():
        if isinstance(answer, dict) and 'together' in answer:
            answer['gate'] = threading.Barrier(answer['together'])
    contexts = {}
    if len(sys.argv) > 2:
        for protocol in 'http/1.1', 'h2':
            contexts[protocol] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            contexts[protocol].load_cert_chain(sys.argv[2], sys.argv[3])
            contexts[protocol].set_alpn_protocols([protocol])
    listener = socket.create_server(('127.0.0.1', 0), backlog=100)
    answers['listener'] = listener

    def serve(connection, number):
        try:
            hang = answers.get('hang', 10 ** 9)
            if number > hang >= 0 or number <= -hang:
                time.sleep(3600)
            time.sleep(answers.get('handshake', 0))
            is_http2 = (contexts and 'http1' not in answers and
                        ('mixed' not in answers or number % 2 == 1))
            if contexts:
                context = contexts['h2' if is_http2 else 'http/1.1']
                connection = context.wrap_socket(connection, server_side=True)
            if is_http2:
                serve_http2(connection, answers,
                            number <= answers.get('ill', 0))
            else:
                serve_http1(connection, answers)
        except (OSError, EOFError):
            pass
        finally:
            connection.close()

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if answers['strays']:
                for other, stray in answers['strays']:
                    other.sendall(stray)
                answers['strays'].clear()
                if 'deaf' in answers:
                    listener.close()
                connection.close()
                continue
            answers['connections'] += 1
            threading.Thread(target=serve,
                             args=(connection, answers['connections']),
                             daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    say(str(listener.getsockname()[1]))
    sys.stdin.read()
    os._exit(0)


if __name__ == '__main__':
    main()
