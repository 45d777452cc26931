"""Random lives of recordings, compared with a simple model: what may be heard, what must exist."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.catalogue.catalogue import Catalogue
from receiver.config.settings import Config, RetentionRule
from receiver.disk import layout
from receiver.errors import NotFoundError, RemovalError
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover, finish_alone
from receiver.lifecycle.erase import erase
from receiver.lifecycle.expiry import Retention
from receiver.media import Track
from receiver.recording import annotations as notes
from receiver.recording import store
from receiver.recording.verify import verify
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.lifecycle import removals

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
EXAMPLES = int(os.environ.get("TAPREEL_LIFE_EXAMPLES", "12"))
COUNT, STEP_MS = 3, 100
DAY = 86_400_000
NUMBERS = st.integers(0, COUNT - 1)
PLACES = st.integers(0, 9)
KILLED = st.none() | st.integers(0, 60)
SOUND = {track: np.full(8000, 1000, np.int16) for track in Track}
STEPS = st.one_of(
    st.tuples(st.just("hold"), NUMBERS),
    st.tuples(st.just("release"), NUMBERS),
    st.tuples(st.just("erase"), NUMBERS, PLACES, PLACES, st.sampled_from([*Track, None]), KILLED),
    st.tuples(st.just("delete"), NUMBERS, KILLED),
    st.tuples(st.just("pass"), st.integers(1, 40)),
)


@dataclass
class Model:
    """What is known of one recording: whether it is there and held, and which places are silent."""

    is_there: bool = True
    is_held: bool = False
    silent: set[tuple[Track, int]] = field(default_factory=set)


class World:
    """A store, and the model of it. Recording n is kept for 30, 60 or 90 days."""

    def __init__(self, recordings: Path) -> None:
        self.recordings = recordings
        self.spool = recordings / ".spool"
        self.models = [Model() for _ in range(COUNT)]
        self.ids = [f"{number:016x}" for number in range(COUNT)]
        self.day = 0
        self.folders = [
            builder.build(recordings, recording_id=each, gaps=(), sounds=SOUND, call_sid=each)
            for each in self.ids
        ]
        for folder in self.folders:
            when = builder.STARTED_AT_MS / 1000
            os.utime(folder / layout.RECORDING_JSON, (when, when))
        rules = tuple(
            RetentionRule(match=(f"call={each}",), keep=f"{30 * (n + 1)}d")
            for n, each in enumerate(self.ids)
        )
        config = Config(
            recordings=recordings, spool=self.spool, retention=rules, retention_max_share=100
        )
        self.catalogue = Catalogue(None, recordings)
        self.catalogue.reconcile()
        self.retention = Retention(
            config, self.catalogue, now_ms=lambda: builder.STARTED_AT_MS + self.day * DAY
        )
        self.remover = Remover(recordings, self.spool, who="ann", via="test")
        self.acts = Acts(recordings, who="ann", via="test")

    def step(self, name: str, *values: Any) -> None:
        """Do one thing in the store and in the model, and compare both."""
        getattr(self, f"do_{name}")(*values)
        self.compare()

    def do_hold(self, number: int) -> None:
        model = self.models[number]
        self.expect(model.is_there, NotFoundError, self.acts.hold, self.folders[number], "case")
        model.is_held = model.is_there

    def do_release(self, number: int) -> None:
        model = self.models[number]
        may = model.is_there and model.is_held
        self.expect(may, NotFoundError, self.acts.release, self.folders[number])
        model.is_held = False

    def do_erase(
        self, number: int, first: int, last: int, track: Track | None, killed: int | None
    ) -> None:
        model, folder = self.models[number], self.folders[number]
        tracks = [track] if track else list(Track)
        span = range(min(first, last), max(first, last) + 1)
        act = partial(
            erase,
            self.remover,
            folder,
            span.start * STEP_MS,
            span.stop * STEP_MS,
            "r",
            tracks=tracks,
        )
        may = model.is_there and not model.is_held
        before = len(store.read(folder).recording.erased) if model.is_there else 0
        if self.done(may, killed, act):
            done = len(store.read(folder).recording.erased) > before
        else:
            done = may
        if done:
            model.silent |= {(each, place) for each in tracks for place in span}

    def do_delete(self, number: int, killed: int | None) -> None:
        model = self.models[number]
        may = model.is_there and not model.is_held
        act = partial(self.remover.delete, self.folders[number], "r")
        if self.done(may, killed, act):
            model.is_there = self.folders[number].exists()
        elif may:
            model.is_there = False

    def do_pass(self, days: int) -> None:
        self.day += days
        self.retention.run()
        for number, model in enumerate(self.models):
            if self.day >= 30 * (number + 1) and not model.is_held:
                model.is_there = False

    def done(self, may: bool, killed: int | None, act: Callable[[], object]) -> bool:
        """Do something, and return whether it was killed; then what is left is finished, too."""
        if killed is None or not may:
            self.expect(may, (RemovalError, NotFoundError), act)
            return False
        removals.killed_before(killed, act)
        finish_alone(self.recordings, self.spool)
        return True

    @staticmethod
    def expect(may: bool, error: Any, act: Callable[..., object], *values: Any) -> None:
        """Do something that may be done, or is refused."""
        if may:
            act(*values)
        else:
            with pytest.raises(error):
                act(*values)

    def compare(self) -> None:
        """Fail where the store is not what the model says."""
        deleted = {each.id for each in store.tombstones(self.recordings) if each.what == "deleted"}
        for number, (model, folder) in enumerate(zip(self.models, self.folders, strict=True)):
            assert model.is_there == folder.is_dir(), number
            assert model.is_there == (self.ids[number] not in deleted)
            if not model.is_there:
                continue
            assert () == verify(folder, store.read(folder).recording)
            assert model.is_held == (notes.read(folder).hold is not None)
            for track in Track:
                samples = soundfile.read(folder / f"{track.value}.wav", dtype="int16")[0]
                heard = samples.reshape(10, -1).any(axis=1)
                assert [(track, place) not in model.silent for place in range(10)] == list(heard)
        left = [name for name in removals.hidden(self.recordings) if "annotations" not in name]
        assert [] == left


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_whatever_happens_the_store_is_what_the_model_says(steps: list[tuple[Any, ...]]) -> None:
    """Holds, erasures, deletions, rules and kills in any order.

    `TAPREEL_LIFE_EXAMPLES=500` tries more.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "recordings")
        try:
            for name, *values in steps:
                world.step(name, *values)
        finally:
            world.catalogue.close()
