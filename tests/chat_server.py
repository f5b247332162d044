"""A server of chat completions on loopback that answers as it is told, faults included, and counts what it is asked."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What goes over the wire. `cut`: so many bytes of the body, then the connection breaks. `reset`: it breaks before
    anything is said. `drip_s`: seconds between two bytes of the body."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    drip_s: float = 0.0
    wait: threading.Event | None = None


def said(content: Any = "yes", *, finish: str = "stop", model: str = "served-1", **message: Any) -> Reply:
    """A chat completion."""
    return Reply(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": model,
            "choices": [
                {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }
    )


def failed(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    return Reply({"error": {"message": message, **more}}, status, headers or {})


class ChatServer:
    """`script` gets the request's body and its number from 0 on, and gives a Reply. `asked` are the bodies in order,
    `paid` those whose answer went out whole with 200."""

    def __init__(self, script: Callable[[dict[str, Any], int], Reply], *, models: tuple[str, ...] = ()):
        self.script, self.models = script, models
        self.asked: list[dict[str, Any]] = []
        self.paid: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that went away is a case here, and no news
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> "ChatServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def questions(self, bodies: list[dict[str, Any]] | None = None) -> list[str]:
        """The last user turns of what was asked."""
        return [body["messages"][-1]["content"] for body in (self.asked if bodies is None else bodies)]


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(Reply({"data": [{"id": name} for name in server.models]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.asked)
                server.asked.append(body)
                server.keys.append(self.headers.get("Authorization"))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                reply = server.script(body, number)
                if reply.wait is not None:
                    reply.wait.wait(30)
                if self._send(reply) and reply.status == 200:
                    server.paid.append(body)
            except OSError:
                self.close_connection = True
            finally:
                with server.lock:
                    server.at_once -= 1

        def _send(self, reply: Reply) -> bool:
            """Whether all of it went out."""
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return False
            data = reply.body if isinstance(reply.body, bytes) else _encoded(reply.body)
            self.send_response_only(reply.status)
            ours = {"Date": self.date_time_string(), "Content-Length": str(len(data))}
            for name, value in {**ours, **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.drip_s:
                for place in range(len(data)):
                    self.wfile.write(data[place : place + 1])
                    time.sleep(reply.drip_s)
                return True
            self.wfile.write(data[: reply.cut])
            if reply.cut is not None:
                self.close_connection = True
                self.connection.close()
            return reply.cut is None

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _encoded(body: Any) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body)).encode()
