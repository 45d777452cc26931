"""Names on disk: ids and times in, and nothing of what a peer sent."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.disk import layout

RECORDING_ID = "00112233aabbccdd"
STARTED_AT_MS = 1_795_379_400_007
FOLDER = f"20261122T203000Z-{RECORDING_ID}"
YEAR_9999_MS = 253_402_300_799_999


def test_a_recording_has_its_place_by_day() -> None:
    """`ls` sorts by time, and no folder holds more than a day."""
    expected = PurePath("2026/11/22") / FOLDER
    assert expected == layout.recording_folder(RECORDING_ID, STARTED_AT_MS)


@given(st.integers(0, YEAR_9999_MS), st.from_regex(layout.RECORDING_ID, fullmatch=True))
def test_a_folders_name_has_the_id(started_at_ms: int, recording_id: str) -> None:
    """Whenever it started; while hidden it is no recording."""
    folder = layout.recording_folder(recording_id, started_at_ms)
    assert recording_id == layout.recording_id_of(folder)
    assert folder.parent == layout.hidden_folder(folder).parent
    assert layout.hidden_folder(folder).name.startswith(".")
    assert layout.recording_id_of(layout.hidden_folder(folder)) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "22",
        RECORDING_ID,
        FOLDER + "0",
        FOLDER[:-1],
        FOLDER.upper(),
        FOLDER + "\n",
        " " + FOLDER,
        FOLDER.replace("-", "_"),
        "." + FOLDER + ".partial",
        FOLDER + ".partial",
        FOLDER.replace("2026", "\u0662\u0660\u0662\u0666", 1),
    ],
)
def test_other_names_are_no_recordings(name: str) -> None:
    """Not even those that look like one to a person."""
    assert layout.recording_id_of(PurePath("2026/11/22") / name) is None


def test_a_journal_is_named_by_its_recording() -> None:
    """Nothing else is in its name."""
    assert f"{RECORDING_ID}.journal" == layout.journal_name(RECORDING_ID)
