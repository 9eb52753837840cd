"""An OpenID Connect issuer on its own port: discovery, keys, tokens, and every kind of misbehaviour."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/keys"
AUDIENCE = "https://pictures.example.com"

IssuerKey = ECKey | RSAKey


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The response for one path. ``hangs`` until released; ``drips`` one byte at a time without end."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    drips: bool = False


class FakeIssuer:
    """A server that runs in a thread within a ``with`` block. Every method may be called from any thread."""

    def __init__(self) -> None:
        """Bind a free port of 127.0.0.1, with one EC key."""
        self.keys: list[IssuerKey] = [new_key("first")]
        self.audience = AUDIENCE
        self.closing = threading.Event()
        self.released = threading.Event()
        self._answers: dict[str, Answer] = {}
        self._requests: list[str] = []
        self._changed = threading.Condition()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and release hanging requests."""
        self.closing.set()
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The issuer's name."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, answer: Answer) -> None:
        """Use this response for every later request whose path matches, until ``recover``."""
        self._answers[path] = answer

    def serve_keys(self, jwks: object) -> None:
        """Serve this as the key set, valid or not."""
        self.answer(JWKS_PATH, Answer(body=json.dumps(jwks).encode()))

    def fail(self, status: int = 500) -> None:
        """Respond to every request with this status."""
        for path in (DISCOVERY_PATH, JWKS_PATH):
            self.answer(path, Answer(status=status))

    def recover(self) -> None:
        """Respond as an issuer does, and release hanging requests."""
        self._answers.clear()
        self.released.set()

    def rotate(self, kid: str) -> IssuerKey:
        """Sign with a new key, and publish only that key."""
        self.keys = [new_key(kid)]
        return self.keys[0]

    def requests(self, path: str = JWKS_PATH) -> int:
        """Return the number of requests for a path so far."""
        with self._changed:
            return self._requests.count(path)

    def wait_for_request(self, path: str = JWKS_PATH, *, seconds: float = 10) -> None:
        """Return once a request for the path has arrived. Raise ``TimeoutError`` otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: path in self._requests, seconds):
                raise TimeoutError(path)

    def claims(self, **changes: object) -> dict[str, Any]:
        """Return the claims of a currently valid token, with changes; ``...`` removes a claim."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": self.audience, "sub": "user-7", "iat": now, "exp": now + 300}
        return {name: value for name, value in {**usual, **changes}.items() if value is not ...}

    def sign(self, *, key: IssuerKey | None = None, header: Mapping[str, Any] | None = None, **claims: object) -> str:
        """Return a token signed by ``key``, by default the issuer's first, with these changes to its header.

        ``...`` removes a member of the header.
        """
        signing = key or self.keys[0]
        usual = {"alg": algorithm_of(signing), "kid": signing.kid}
        members = {name: value for name, value in {**usual, **(header or {})}.items() if value is not ...}
        return jwt.encode(members, self.claims(**claims), signing, algorithms=[members["alg"]], default_type=None)

    def received(self, path: str) -> Answer:
        """Count a request; return its response."""
        with self._changed:
            self._requests.append(path)
            self._changed.notify_all()
        return self._answers.get(path) or self._usual(path)

    def _usual(self, path: str) -> Answer:
        if path == DISCOVERY_PATH:
            return Answer(body=json.dumps({"issuer": self.url, "jwks_uri": self.url + JWKS_PATH}).encode())
        if path == JWKS_PATH:
            return Answer(body=json.dumps({"keys": [public_jwk_of(key) for key in self.keys]}).encode())
        return Answer(status=404)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, issuer: FakeIssuer) -> None:
        self.issuer = issuer
        super().__init__(("127.0.0.1", 0), _Exchange)


class _Exchange(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        issuer = self.server.issuer
        answer = issuer.received(self.path)
        if answer.hangs:
            issuer.released.wait(60)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not answer.drips:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self._send(b" " if answer.drips else answer.body)
        while answer.drips and not issuer.closing.wait(0.02):
            self._send(b" ")

    def _send(self, content: bytes) -> None:
        # The client may have closed the connection early.
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write no log: tests read the log of the client."""


def new_key(kid: str, curve: str = "P-256") -> ECKey:
    """Return a new EC key."""
    return ECKey.generate_key(curve, {"kid": kid})


@lru_cache(maxsize=4)
def rsa_key(kid: str, bits: int = 2048) -> RSAKey:
    """Return an RSA key, cached by name because generating one is slow."""
    return RSAKey.generate_key(bits, {"kid": kid})


def algorithm_of(key: IssuerKey) -> str:
    """Return the usual signing algorithm of this kind of key."""
    return "RS256" if isinstance(key, RSAKey) else "ES256"


def public_jwk_of(key: IssuerKey) -> dict[str, Any]:
    """Return the public half of a key as issuers publish it."""
    return {**key.as_dict(private=False), "use": "sig", "alg": algorithm_of(key)}
