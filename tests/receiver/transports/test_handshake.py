"""Who calls: the other end of a socket, or whom a trusted proxy names."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.transports.handshake import (
    InvalidRequestError,
    caller_address,
    check_beginning,
    read_request,
)

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("expected", "address", "forwarded"),
    [
        ("192.0.2.7", "10.0.0.1", ["192.0.2.7"]),
        ("192.0.2.7", "10.0.0.1", ["192.0.2.7, 10.0.0.9"]),
        ("192.0.2.7", "10.0.0.1", ["1.1.1.1, 192.0.2.7, 10.0.0.9"]),
        ("192.0.2.7", "10.0.0.1", ["1.1.1.1", "192.0.2.7", "10.0.0.9"]),
        ("192.0.2.7", "10.0.0.1", ["192.0.2.7:4711"]),
        ("2001:db9::7", "2001:db8::1", ["[2001:db9::7]:4711"]),
        ("2001:db9::7", "2001:db8::1", ['"[2001:DB9::7]"']),
        ("192.0.2.7", "10.0.0.1", ["::ffff:192.0.2.7"]),
        ("10.0.0.9", "10.0.0.1", ["192.0.2.7, unknown, 10.0.0.9"]),
        ("10.0.0.1", "10.0.0.1", ["192.0.2.7, "]),
        ("10.0.0.1", "10.0.0.1", []),
        ("10.0.0.2", "10.0.0.1", ["10.0.0.2, 10.0.0.3"]),
        ("192.0.2.1", "192.0.2.1", ["192.0.2.7"]),
        ("", "", ["192.0.2.7"]),
    ],
)
def test_the_caller_is_the_rightmost_address_that_is_no_trusted_proxys(
    expected: str, address: str, forwarded: list[str]
) -> None:
    """What stands further left is what the caller says itself; a name that is none ends it."""
    assert expected == caller_address(address, forwarded, PROXIES)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_nobody_but_a_trusted_proxy_chooses_its_address(forwarded: list[str]) -> None:
    """Whatever it sends, also in front of what a proxy appends."""
    assert "192.0.2.1" == caller_address("192.0.2.1", forwarded, PROXIES)
    assert "192.0.2.1" == caller_address("10.0.0.1", [*forwarded, "192.0.2.1"], PROXIES)


def test_a_request_has_the_address_of_its_caller() -> None:
    """However the header is spelled."""
    head = b"GET /audio HTTP/1.1\r\nx-forwarded-FOR: 192.0.2.7\r\n\r\n"
    assert "192.0.2.7" == read_request(head, "10.0.0.1", PROXIES).request.remote_address
    assert "10.0.0.1" == read_request(head, "10.0.0.1").request.remote_address


LINES = st.sampled_from(
    [
        *(b"GET /audio HTTP/1.1", b"HEAD /audio?x=canary HTTP/1.0", b"PRI * HTTP/2.0", b"\x16\x03"),
        *(b"Host: x", b"Connection: keep-alive, Upgrade", b"Connection: canary@;", b"Upgrade: h2c"),
        *(b"Upgrade: websocket", b"Upgrade: ;", b"Sec-WebSocket-Version: 13", b"X: \xff"),
        *(b"Sec-WebSocket-Version: canary", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        *(b"Sec-WebSocket-Key: canary", b"Content-Length: 0", b"Content-Length: canary", b" x"),
        *(b"Sec-WebSocket-Extensions: canary;;", b"Sec-WebSocket-Protocol: canary,,", b"a:b\0"),
        *(b"Authorization: Bearer canary", b"Transfer-Encoding: chunked", b"X-Forwarded-For: ,,;"),
    ]
)


@given(st.lists(LINES | st.binary(max_size=20), max_size=9))
def test_whatever_comes_gets_one_answer_that_repeats_nothing_of_it(lines: list[bytes]) -> None:
    """Where it is no upgrade, that says what is wrong; no other error comes of it."""
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    head = head[: head.index(b"\r\n\r\n") + 4]
    try:
        check_beginning(bytearray(head), 0)
        handshake = read_request(head, "10.0.0.1", PROXIES)
    except InvalidRequestError as invalid:
        answer, detail = invalid.response, invalid.detail
    else:
        no_upgrade = handshake.request.no_upgrade
        answer = handshake.refusal(no_upgrade) if no_upgrade else handshake.response()
        detail = no_upgrade.body if no_upgrade else "upgraded"
    status = answer.removeprefix(b"HTTP/1.1 ")[:3]
    assert status in (b"101", b"400", b"405", b"413", b"426", b"431", b"505")
    assert (1, 0) == (answer.count(b"\r\nServer: "), answer.count(b"canary"))
    assert answer.count(b"\r\n\r\n") == 1
    assert detail
    assert "canary" not in detail
