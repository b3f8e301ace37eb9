#!/usr/bin/python3
"""A proxy that opens every tunnel that it is asked for.

    tunnel.py [tls1.1|join] [CERTIFICATE KEY]
        With a certificate, clients come over TLS; with "tls1.1", over that
        version at most.  With "join", what servers send is passed on in large
        pieces.

Prints its port, then for each client what it sent to the proxy itself, as a
JSON string on a line.  Ends with its standard input.
"""

import json
import select
import socket
import ssl
import sys
import threading
import time


def say(text):
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def forward(source, target, delay=0):
    try:
        while data := source.recv(65536):
            time.sleep(delay)
            if delay and select.select([source], [], [], 0)[0]:
                data += source.recv(65536)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client, context, delay):
    try:
        if context:
            client = context.wrap_socket(client, server_side=True)
    except OSError:
        say(json.dumps('no TLS'))
        return
    head = b''
    while b'\r\n\r\n' not in head:
        some = client.recv(65536)
        if not some:
            break
        head += some
    say(json.dumps(head.decode('latin1')))
    if head.startswith(b'CONNECT '):
        host, port = head.split(b' ')[1].decode().rsplit(':', 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
        back = threading.Thread(target=forward,
                                args=(server, client, delay))
        back.start()
        forward(client, server)
        back.join()
        server.close()
    client.close()


def main():
    arguments = sys.argv[1:]
    context = None
    delay = 0.05 if arguments[:1] == ['join'] else 0
    if len(arguments) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments[-2:])
    if arguments[:1] == ['tls1.1']:
        context.set_ciphers('ALL:@SECLEVEL=0')
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    listener = socket.create_server(('127.0.0.1', 0), backlog=128)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, context, delay),
                             daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    say(str(listener.getsockname()[1]))
    sys.stdin.read()


if __name__ == '__main__':
    main()
