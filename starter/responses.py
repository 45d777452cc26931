"""Parsing of the provider's answers, in all the forms it uses. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from starter.errors import AnswerError, one_line
from starter.models import StreamHandle

_MONTH = re.compile(r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?", re.IGNORECASE)
_LONGEST_TEXT: Final = 300  # characters of an explanation, which may be a proxy's page


def parse_handle(body: bytes) -> StreamHandle:
    """The stream that a successful answer describes.

    Only `sid` is needed, since the sid of a stream is lost if its answer is refused here: other
    fields that are missing or odd become None. Raises AnswerError.
    """
    fields = _json(body)
    if not isinstance(fields, Mapping) or not (sid := _text(fields, "sid")):
        raise AnswerError("the provider reports success without naming the stream")
    return StreamHandle(
        sid=sid,
        account_sid=_text(fields, "account_sid"),
        call_sid=_text(fields, "call_sid"),
        conference_sid=_text(fields, "conference_sid"),
        name=_text(fields, "name"),
        status=_text(fields, "status"),
        date_updated=parse_date(_text(fields, "date_updated") or ""),
        uri=_text(fields, "uri"),
    )


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The fields of an error answer, as far as it has them."""

    message: str
    code: int | None = None
    more_info: str | None = None


def parse_error(body: bytes, mask: Callable[[str], str] = str) -> ErrorAnswer:
    """The fields of an error answer, every text of it in one short line.

    Accepted are `{code, message, more_info, status}`, `{errors: [text, ...]}` and
    `{errors: [{code, message, more_info}, ...]}`; anything else is quoted. `mask` hides what is
    not to be repeated: it gets each text decoded and whole, since a cut could leave half a secret.
    """
    fields = _json(body)
    entries = fields.get("errors", [fields]) if isinstance(fields, Mapping) else []
    entries = entries if isinstance(entries, list) else [entries]
    details = [entry for entry in entries if isinstance(entry, Mapping)]
    messages = [entry if isinstance(entry, str) else _message(entry) for entry in entries]
    message = "; ".join(text for text in messages if text) or body.decode("utf-8", "replace")
    first: Mapping[str, Any] = details[0] if details else {}
    more_info = _text(first, "more_info")
    return ErrorAnswer(
        _shortened(mask(message)) or "no explanation given",
        _number(first, "code"),
        more_info and _shortened(mask(more_info)),
    )


def parse_date(text: str) -> datetime | None:
    """A date of RFC 2822 (months longer than three letters too) or ISO 8601, or None.

    The provider's own examples say "25 Sept 2018".
    """
    for read, written in (
        (parsedate_to_datetime, _MONTH.sub(r"\1", text)),
        (datetime.fromisoformat, text),
    ):
        try:
            date = read(written)
        except (ValueError, OverflowError):
            continue
        # "-0000" and a missing zone both stand for UTC
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header: a number of seconds or an HTTP date."""
    text = (text or "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    date = parse_date(text) if text else None
    return None if date is None else max(0.0, (date - now).total_seconds())


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    """A whole number of sane length, written as such or in digits."""
    value = fields.get(name)
    if isinstance(value, str | int) and re.fullmatch("-?[0-9]{1,9}", str(value)):
        return int(value)
    return None


def _message(entry: object) -> str | None:
    return _text(entry, "message") if isinstance(entry, Mapping) else None


def _shortened(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
