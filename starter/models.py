"""Requests to the provider and its answers, as typed values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from starter import validation
from starter.errors import InvalidRequestError

MASK: Final = "***"
_TOKEN_FIELD: Final = "AuthorizationBearerToken"  # noqa: S105  the field's name, not a secret


class Track(StrEnum):
    """Which directions of the call to stream."""

    INBOUND = "inbound_track"
    OUTBOUND = "outbound_track"
    BOTH = "both_tracks"


class CallbackMethod(StrEnum):
    """How the provider calls the status callback."""

    GET = "GET"
    POST = "POST"


class Codec(StrEnum):
    """How the audio is encoded; a request can choose it for conferences only."""

    PCMU = "PCMU"
    PCMA = "PCMA"
    L16 = "L16"
    L16_16000 = "L16@16000h"
    L16_24000 = "L16@24000h"


class Target(StrEnum):
    """What a stream is attached to, spelled as in the provider's paths."""

    CALL = "Calls"
    CONFERENCE = "Conferences"

    @property
    def sid_prefix(self) -> str:
        """The first two letters of Twilio-style sids of this kind."""
        return "CA" if self is Target.CALL else "CF"

    @property
    def word(self) -> str:
        """The thing's name in sentences."""
        return "call" if self is Target.CALL else "conference"

    def check_sid(self, sid: str) -> str:
        """Return a well-formed sid of this kind; raises InvalidRequestError."""
        return validation.check_sid(sid, f"the {self.word} sid", self.sid_prefix)


_Choice = TypeVar("_Choice", bound=StrEnum)


def member(kind: type[_Choice], value: str, what: str) -> _Choice:
    """The member of an enum by its value; raises InvalidRequestError that lists what there is."""
    try:
        return kind(value)
    except ValueError as error:
        allowed = ", ".join(kind)
        raise InvalidRequestError(f"{what} must be one of {allowed}, not {value!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """One stream to be started, checked when it is made.

    `parameters` reach the receiver in the `start` message. `codec` and `real_time` are settings of
    conference streams. With `name` None the client makes a unique one. Raises InvalidRequestError.
    """

    url: str
    name: str | None = None
    track: Track = Track.BOTH
    parameters: Mapping[str, str] = field(default_factory=dict)
    status_callback: str | None = field(default=None, repr=False)  # may hold a password
    status_callback_method: CallbackMethod = CallbackMethod.POST
    bearer_token: str | None = field(default=None, repr=False)
    codec: Codec | None = None
    real_time: bool | None = None

    def __post_init__(self) -> None:
        validation.check_stream_url(self.url)
        if self.name is not None:
            validation.check_name(self.name)
        if self.status_callback is not None:
            validation.check_callback_url(self.status_callback)
        if self.bearer_token is not None:
            validation.check_bearer_token(self.bearer_token)
        self._set("track", member(Track, self.track, "the track"))
        method = member(CallbackMethod, self.status_callback_method, "the callback method")
        self._set("status_callback_method", method)
        if self.codec is not None:
            self._set("codec", member(Codec, self.codec, "the codec"))
        self._set("parameters", validation.check_parameters(self.parameters.items()))

    def _set(self, name: str, value: object) -> None:
        """Replace a given value by the checked one, in the constructor only."""
        object.__setattr__(self, name, value)

    def form(self, target: Target = Target.CALL) -> list[tuple[str, str]]:
        """The form fields to post, in a fixed order.

        `Track` is always sent, because its default differs between the provider's interfaces.
        Raises InvalidRequestError if a field does not exist for `target`.
        """
        optional = (
            ("Name", self.name),
            ("StatusCallback", self.status_callback),
            ("StatusCallbackMethod", self.status_callback and self.status_callback_method.value),
            *self._conference_fields(target),
            (_TOKEN_FIELD, self.bearer_token),
        )
        fields = [("Url", self.url), ("Track", self.track.value)]
        fields += [(name, value) for name, value in optional if value is not None]
        for number, (name, value) in enumerate(self.parameters.items(), 1):
            fields += [(f"Parameter{number}.Name", name), (f"Parameter{number}.Value", value)]
        return fields

    def _conference_fields(self, target: Target) -> tuple[tuple[str, str | None], ...]:
        if target is Target.CONFERENCE:
            real_time = None if self.real_time is None else str(self.real_time).lower()
            return (("StreamCodec", self.codec and self.codec.value), ("StreamRealTime", real_time))
        if self.codec is not None or self.real_time is not None:
            raise InvalidRequestError("codec and real time can be chosen for conferences only")
        return ()


def masked(form: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same form for display: without bearer token and without the callback URL's password."""
    masks = {_TOKEN_FIELD: lambda _: MASK, "StatusCallback": _without_password}
    return [(name, masks.get(name, str)(value)) for name, value in form]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHandle:
    """A stream as the provider describes it.

    Exactly one of `call_sid` and `conference_sid` is expected. `status` is usually queued,
    in-progress or stopped, but not restricted to these. `date_updated` is aware of its time zone,
    or None if it could not be read. Sids are kept as they came: the provider's are not valid UUIDs.
    """

    sid: str
    account_sid: str | None = None
    call_sid: str | None = None
    conference_sid: str | None = None
    name: str | None = None
    status: str | None = None
    date_updated: datetime | None = None
    uri: str | None = None


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", f"//{MASK}@", url)
