"""Tell other systems of anomalous images: signed messages, sent again with growing pauses, kept where none arrives.

A message is stored in the transaction that stores the answer, so none is lost. It arrives at least once: a receiver
tells repeated ones by the number `delivery`. The header `X-Anomalens-Signature: t=TIME,v1=HEX` holds the HMAC-SHA256 of
`TIME.BODY` by the secret that was shown once when the webhook was made.
"""

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from anomalens.errors import one_line
from anomalens.posting import checked_address, post_json
from anomalens.serving.answers import inspection_json
from anomalens.serving.database import Database
from anomalens.serving.history import NotFoundError, present
from anomalens.serving.schema import Delivery, Inspection, Webhook, now

_log = logging.getLogger("anomalens.serving")

PAUSES = (5, 30, 120, 600, 1800, 3600, 4 * 3600, 12 * 3600)
"""Seconds after the first, second, ... failed attempt until the next one; after the last one a message is dead."""
# Seconds that a receiver may take to answer, and for which no other process tries the same message.
_PATIENCE, _CLAIM = 10, 60
# Seconds between two looks at what is due; messages sent between two looks.
_TICK, _AT_ONCE = 0.5, 20
# Seconds that a store which does not answer is left alone at most.
_LONGEST = 30.0


class Webhooks:
    """Keep addresses and messages."""

    def __init__(self, database: Database) -> None:
        """Keep the webhooks of a database."""
        self._database = database

    def add(self, url: str, recipe: str | None = None) -> Webhook:
        """Store an address, with a new secret. Raises ConfigError where it is none that can be called."""
        webhook = Webhook(id=uuid.uuid4().hex, url=checked_address(url), secret=secrets.token_hex(32), recipe=recipe)
        with self._database.writing() as session:
            session.add(webhook)
        return webhook

    def all(self) -> list[Webhook]:
        """Return all addresses, the oldest first."""
        with self._database.reading() as session:
            return list(session.scalars(select(Webhook).order_by(Webhook.created)))

    def remove(self, id: str) -> None:
        """Delete an address and its messages. Raises NotFoundError."""
        with self._database.writing() as session:
            present(session.get(Webhook, id), "webhook")
            session.execute(delete(Delivery).where(Delivery.webhook_id == id))
            session.execute(delete(Webhook).where(Webhook.id == id))

    def deliveries(self, id: str, state: str | None = None, limit: int = 100) -> list[Delivery]:
        """Return the latest messages to an address, the newest first. Raises NotFoundError."""
        statement = select(Delivery).where(Delivery.webhook_id == id).order_by(Delivery.id.desc()).limit(limit)
        if state is not None:
            statement = statement.where(Delivery.state == state)
        with self._database.reading() as session:
            present(session.get(Webhook, id), "webhook")
            return list(session.scalars(statement))

    def retry(self, id: str, number: int) -> Delivery:
        """Send a message again, as if for the first time. Raises NotFoundError."""
        with self._database.writing() as session:
            delivery = present(session.get(Delivery, number), "message")
            if delivery.webhook_id != id:
                raise NotFoundError("there is no such message")
            delivery.state, delivery.attempts, delivery.due = "waiting", 0, now()
        return delivery


def signature(secret: str, moment: int, body: bytes) -> str:
    """Return the signature of a message sent at a moment, in seconds since 1970."""
    digest = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


@dataclass(frozen=True)
class _Message:
    """Hold what is sent, and how often it was tried before."""

    number: int
    url: str
    secret: str
    body: bytes
    attempts: int


class Messenger:
    """Send messages that are due, in a thread of its own."""

    def __init__(self, database: Database) -> None:
        """Start the thread."""
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anomalens-webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; what is not sent yet is sent after the next start."""
        self._stopping.set()
        self._thread.join(_PATIENCE + 1)

    def _run(self) -> None:
        pause = _TICK
        while not self._stopping.is_set():
            try:
                messages = self._claim()
                for message in messages:
                    self._settle(message, self._send(message))
                pause = _TICK
            except SQLAlchemyError as error:
                pause = min(2 * pause, _LONGEST)
                _log.error("messages to webhooks cannot be read, again in %g s: %s", pause, one_line(error))
                messages = []
            if not messages:
                self._stopping.wait(pause)

    def _claim(self) -> list[_Message]:
        """Take messages that are due, so that no other process sends them meanwhile."""
        due = select(Delivery).where(Delivery.state == "waiting", Delivery.due <= now())
        with self._database.reading() as session:
            if session.scalar(due.with_only_columns(Delivery.id).limit(1)) is None:
                return []
        with self._database.writing() as session:
            statement = due.order_by(Delivery.due).limit(_AT_ONCE).with_for_update(skip_locked=True)
            messages = []
            for delivery in session.scalars(statement):
                delivery.due = now() + timedelta(seconds=_CLAIM)
                webhook, row = (
                    session.get(Webhook, delivery.webhook_id),
                    session.get(Inspection, delivery.inspection_id),
                )
                if webhook is not None and row is not None:
                    body = _body(delivery, row)
                    messages.append(_Message(delivery.id, webhook.url, webhook.secret, body, delivery.attempts))
        return messages

    def _send(self, message: _Message) -> str | None:
        """Send a message; return why it did not arrive, or None."""
        if self._stopping.is_set():
            return "the service stopped"
        signed = {"X-Anomalens-Signature": signature(message.secret, int(time.time()), message.body)}
        return post_json(message.url, message.body, seconds=_PATIENCE, headers=signed)

    def _settle(self, message: _Message, problem: str | None) -> None:
        with self._database.writing() as session:
            delivery = session.get(Delivery, message.number)
            if delivery is None:
                return
            delivery.attempts = message.attempts + 1
            delivery.error = problem
            if problem is None:
                delivery.state = "delivered"
            elif message.attempts < len(PAUSES):
                delivery.due = now() + timedelta(seconds=PAUSES[message.attempts])
            else:
                delivery.state = "dead"
                _log.warning("message %d to a webhook never arrived: %s", message.number, problem)


def _body(delivery: Delivery, row: Inspection) -> bytes:
    return json.dumps({"event": "anomalous", "delivery": delivery.id, "inspection": inspection_json(row)}).encode()
