"""The calls of one simulation, all played at the same time into one receiver."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from starter.errors import StarterError
from starter.simulator.audio import read_payload
from starter.simulator.dialects import Dialect, SignalWireDialect, TwilioDialect
from starter.simulator.options import SimulateOptions
from starter.simulator.player import CallReport, Ending, Line, Player, tls_context
from starter.simulator.script import Faults, Plan
from starter.simulator.stream_info import MEDIA_FORMATS, Identity, TrackAudio
from starter.tokens import Bearer

_DIALECTS: Final[Mapping[str, Callable[[Identity], Dialect]]] = {
    "signalwire": SignalWireDialect,
    "twilio": TwilioDialect,
}
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def read_tracks(options: SimulateOptions) -> tuple[TrackAudio, ...]:
    """The audio of every track, encoded once for all calls. Raises AudioError."""
    order, resample = options.byte_order, options.resample
    return tuple(
        TrackAudio(track, read_payload(path, options.codec, byte_order=order, resample=resample))
        for track, path in options.sources().items()
    )


def make_line(options: SimulateOptions, url: str) -> Line:
    """How to reach the receiver at `url`. Raises ConfigError for an unusable CA file."""
    secure = url.lower().startswith("wss:")
    return Line(
        url=url,
        ssl_context=tls_context(options.ca_file, insecure=options.insecure) if secure else None,
        speed=options.speed,
        ending=Ending.RESET if options.abort else Ending.CLOSE,
    )


def make_plan(
    options: SimulateOptions,
    identity: Identity,
    tracks: tuple[TrackAudio, ...],
    *,
    number: int = 0,
    parameters: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of call `number`; each number has its own faults under the same seed."""
    return Plan(
        dialect=_DIALECTS[options.provider_shape](identity),
        media_format=MEDIA_FORMATS[options.codec],
        tracks=tracks,
        parameters=options.param if parameters is None else parameters,
        keypresses=options.dtmf,
        packet_ms=options.packet_ms,
        first_timestamp_ms=options.first_timestamp,
        with_stop=not options.no_stop,
        faults=Faults(
            loss=options.loss,
            reorder=options.reorder,
            duplicate=options.duplicate,
            jitter_ms=options.jitter,
            seed=f"{options.seed}/{number}",
        ),
    )


Result = CallReport | StarterError


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result per call, in order: what was sent, or why it failed."""

    results: list[Result]
    interrupted: bool


async def place_calls(options: SimulateOptions, url: str, bearer: Bearer | None) -> Outcome:
    """Play all calls at once; Ctrl-C and SIGTERM end them early but properly."""
    tracks = read_tracks(options)
    line = make_line(options, url)
    players = []
    for number in range(options.calls):
        identity = options.identity()
        token = bearer.token_for(identity.call_sid) if bearer else None
        plan = make_plan(options, identity, tracks, number=number)
        players.append(Player(identity, plan, line, bearer_token=token))
    with interruptible() as interrupted:
        ending = asyncio.create_task(_stop_on(interrupted, players))
        results = await asyncio.gather(*map(outcome, players))
        ending.cancel()
    return Outcome(results, interrupted.is_set())


async def _stop_on(interrupted: asyncio.Event, players: Sequence[Player]) -> None:
    await interrupted.wait()
    for player in players:
        player.stop()


async def outcome(player: Player, *, on_open: Callable[[], None] = lambda: None) -> Result:
    """Play one call to its report or failure: a refused call does not end the others."""
    try:
        return await player.play(on_open=on_open)
    except StarterError as error:
        return error


@contextmanager
def interruptible() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one stops the program at once."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        release()

    def release() -> None:
        for number in _END_SIGNALS:
            loop.remove_signal_handler(number)

    for number in _END_SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        yield interrupted
    finally:
        release()
