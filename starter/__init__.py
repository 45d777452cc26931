"""Client of the provider's REST API: starts and stops media streams on live calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starter.config import Credentials
from starter.errors import (
    AnswerError,
    ApiError,
    AudioError,
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    RejectedError,
    StarterError,
    UnavailableError,
    UnreachableError,
)
from starter.models import CallbackMethod, Codec, StreamHandle, StreamRequest, Track
from starter.retry import RetryPolicy

if TYPE_CHECKING:
    from starter.client import StreamClient

__all__ = [
    "AnswerError",
    "ApiError",
    "AudioError",
    "CallbackMethod",
    "Codec",
    "ConfigError",
    "Credentials",
    "InvalidRequestError",
    "NotFoundError",
    "OutcomeUnknownError",
    "RefusedError",
    "RejectedError",
    "RetryPolicy",
    "StarterError",
    "StreamClient",
    "StreamHandle",
    "StreamRequest",
    "Track",
    "UnavailableError",
    "UnreachableError",
]


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for: it brings an HTTP library along."""
    if name == "StreamClient":
        from starter.client import StreamClient

        return StreamClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
