"""Signatures, compared with the library of the specification."""

from __future__ import annotations

import base64
import time

import pytest
import standardwebhooks
from standardwebhooks.webhooks import WebhookVerificationError

from receiver.notifications.signing import headers, parse_secrets
from tests.receiver.helpers.hooks import OTHER_SECRET, SECRET


def test_others_verify_what_is_signed() -> None:
    """With either of two secrets, while one is exchanged for the other; and with no third one."""
    now, body = int(time.time()), b'{"a": "\xc3\xa9"}'
    sent = headers("evt_1", now, body, parse_secrets(f"{SECRET}\n{OTHER_SECRET}\n"))
    assert 2 == len(sent["webhook-signature"].split(" "))
    for secret in (SECRET, OTHER_SECRET):
        assert {"a": "é"} == standardwebhooks.Webhook(secret).verify(body, sent)
    third = standardwebhooks.Webhook("whsec_" + base64.b64encode(b"3" * 32).decode())
    with pytest.raises(WebhookVerificationError):
        third.verify(body, sent)


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "body"])
def test_whatever_is_changed_is_seen(part: str) -> None:
    """Id, time and body are signed together."""
    now, body = int(time.time()), b"{}"
    sent = headers("evt_1", now, body, parse_secrets(SECRET))
    sent |= {"webhook-id": "evt_2"} if part == "webhook-id" else {}
    sent |= {"webhook-timestamp": f"{now + 1}"} if part == "webhook-timestamp" else {}
    with pytest.raises(WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(b"[]" if part == "body" else body, sent)


def test_a_signature_is_that_of_the_specification() -> None:
    """Its own example."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    sent = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, parse_secrets(secret))
    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == sent["webhook-signature"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no secret"),
        ("# only a comment\n", "no secret"),
        (f"{SECRET}\nnonsense\n", "line 2"),
        (SECRET.removeprefix("whsec_"), "line 1"),
        ("whsec_" + base64.b64encode(b"short").decode(), "24 to 64 bytes"),
        ("whsec_!!!!", "line 1"),
        (f"{SECRET}\n" * 9, "more than 8"),
    ],
)
def test_what_is_no_secret_is_named_by_its_line(text: str, problem: str) -> None:
    """The secret itself is in no message."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_secrets(text)
    assert "nonsense" not in str(caught.value)
