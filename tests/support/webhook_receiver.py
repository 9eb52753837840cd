"""Shared support for webhook tests: a receiver on its own port that may misbehave, and rows of both tables."""

import contextlib
import ssl
import tempfile
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook

from pixyproxy.core.models.generation import GenerationGuid, GenerationStatus
from pixyproxy.core.models.image import ImageGuid
from pixyproxy.core.models.tenant import TenantId
from pixyproxy.core.models.webhook import (
    DeliveryGuid,
    DeliveryStatus,
    GenerationOutcome,
    StoredDelivery,
    StoredWebhook,
    WebhookEvent,
    WebhookGuid,
)
from tests.support.builders import MOMENT, new_guid

NO_CONTENT = 204
OK = 200


@dataclass(frozen=True)
class Received:
    """One request; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The ``webhook-id``."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:  # noqa: ANN401  (any JSON value)
        """Return the body, verified by the standard's own library.

        Raise ``WebhookVerificationError`` if it is invalid.
        """
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key, both in PEM."""

    certificate: str
    key: str

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this certificate alone."""
        return ssl.create_default_context(cadata=self.certificate)

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.certificate + self.key)
            file.flush()
            context.load_cert_chain(Path(file.name))
        return context


class WebhookReceiver:
    """Receives within a ``with`` block, in threads, by https if it has a certificate.

    Responds with ``statuses``, one per request, and then with 204.
    """

    def __init__(self, certificate: Certificate | None = None) -> None:
        """Bind a free port of 127.0.0.1."""
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.endless = False
        self.received: list[Received] = []
        self.released = threading.Event()
        self.released.set()
        self._scheme = "http" if certificate is None else "https"
        self._server = _Server(self, None if certificate is None else certificate.server_context())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        """Start receiving."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and release hung requests."""
        self.endless = False
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def url(self, host: str = "127.0.0.1") -> str:
        """Return a URL of this receiver."""
        return f"{self._scheme}://{host}:{self.port}/hook?token=1"

    def hang(self) -> None:
        """Send no response until ``released`` is set."""
        self.released.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: WebhookReceiver, context: ssl.SSLContext | None) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Exchange)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)


class _Exchange(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Count a request that arrives because a redirect was followed."""
        self.do_POST()

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.received.append(Received(path=self.path, headers=headers, body=body))
        status = receiver.statuses.pop(0) if receiver.statuses else NO_CONTENT
        receiver.released.wait(60)
        # The client may have closed the connection early.
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()
            while receiver.endless:
                self.wfile.write(b" " * 65_536)

    def log_message(self, *_: object) -> None:
        """Write no log: tests read the log of the client."""


def make_certificate(*names: str) -> Certificate:
    """Return a certificate for these hosts."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a receiver")])
    moment = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=subject, subject_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM).decode(), encoded.decode())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def new_webhook(tenant_id: TenantId, **changes: object) -> StoredWebhook:
    webhook = StoredWebhook(
        guid=WebhookGuid(new_guid()),
        tenant_id=tenant_id,
        url="https://example.com/hook",
        events=frozenset(WebhookEvent),
        version=1,
        former_secret_until=None,
        created_at=MOMENT,
        disabled_at=None,
    )
    return StoredWebhook.model_validate(webhook.model_dump() | changes)


def new_delivery(webhook: StoredWebhook, **changes: object) -> StoredDelivery:
    delivery = StoredDelivery(
        guid=DeliveryGuid(str(uuid.uuid4())),
        tenant_id=webhook.tenant_id,
        webhook_guid=webhook.guid,
        event=WebhookEvent.GENERATION_STORED,
        payload='{"prompt": "a 🦊"}',
        status=DeliveryStatus.PENDING,
        attempts=0,
        created_at=MOMENT,
        next_attempt_at=MOMENT,
        response_status=None,
        problem=None,
        finished_at=None,
    )
    return StoredDelivery.model_validate(delivery.model_dump() | changes)


def new_outcome(
    tenant_id: TenantId,
    status: GenerationStatus = GenerationStatus.STORED,
    *,
    images: Sequence[str] = (),
    error: str | None = None,
    at: datetime = MOMENT,
) -> GenerationOutcome:
    return GenerationOutcome(
        tenant_id=tenant_id,
        guid=GenerationGuid(new_guid()),
        status=status,
        prompt='a "red" 🦊\u2028in the snow',
        images=tuple(map(ImageGuid, images)),
        error=error,
        at=at,
    )
