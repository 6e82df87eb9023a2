"""A name -> addresses that a test may change, over DNS; and a relay at one of them, to a server that is elsewhere."""

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

A = 1  # the type of a record that holds an IPv4 address (RFC 1035, 3.2.2)
NO_ERROR = 0x8180  # an answer, recursion wanted and available


@dataclass
class Names:
    """Whatever is asked for stands for `addresses`, as the name of a service does in a network of containers."""

    addresses: Sequence[str]
    port: int = field(init=False)

    @contextmanager
    def running(self) -> Iterator["Names"]:
        names = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                query, answering = self.request
                answering.sendto(answer(query, names.addresses), self.client_address)

        with socketserver.UDPServer(("127.0.0.1", 0), Handler) as listening, serving(listening):
            self.port = listening.server_address[1]
            yield self


@contextmanager
def relay(address: str, port: int, behind: int) -> Iterator[None]:
    """address:port of this machine is port `behind` of 127.0.0.1: the server itself listens nowhere else."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", behind)) as server:
                back = threading.Thread(target=pump, args=[server, self.request])
                back.start()
                pump(self.request, server)
                back.join()

    with socketserver.ThreadingTCPServer((address, port), Handler) as listening, serving(listening):
        yield


@contextmanager
def serving(listening: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=listening.serve_forever, args=[0.01])
    thread.start()
    try:
        yield
    finally:
        listening.shutdown()
        thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either may be gone at any time
        while content := source.recv(1 << 16):
            sink.sendall(content)
        sink.shutdown(socket.SHUT_WR)


def answer(query: bytes, addresses: Sequence[str]) -> bytes:
    """query: one question (RFC 1035, 4). Other types than A have no records."""
    kind = struct.unpack(">H", query[-4:-2])[0]
    here = addresses if kind == A else ()
    head = query[:2] + struct.pack(">5H", NO_ERROR, 1, len(here), 0, 0)
    record = struct.pack(">3HIH", 0xC00C, A, 1, 600, 4)  # the name is that at byte 12; 600 s, as Docker says
    return head + query[12:] + b"".join(record + socket.inet_aton(address) for address in here)
