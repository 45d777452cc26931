"""What a WAV file says of itself, as libsndfile and four readers that are not ours show it."""

from __future__ import annotations

import json
import struct
import subprocess
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import mutagen.id3
import mutagen.wave
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from receiver.audio import wav_tags
from receiver.errors import UnreadableError
from receiver.media import parameter_text
from tests.receiver.helpers import recordings_builder as builder

# mutagen ships no types
read_id3: Callable[..., Any] = mutagen.id3.ID3
read_wave: Callable[..., Any] = mutagen.wave.WAVE

NINETY = {
    (f"Schlüssel {n}" if n % 3 else f"名前{n}😀"): (f"Wert {n}" if n % 2 else f"値{n} 🎧")
    for n in range(90)
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def build_tags(**fields: Any) -> wav_tags.Tags:
    """Return the strings of an ordinary inbound track, with some fields replaced."""
    usual: dict[str, Any] = {
        "call_sid": "76ac3c36-aaaa",
        "account_sid": "b08dacad",
        "started_at": "2026-11-22T20:30:00.000Z",
        "parameters": {"Name": "Jane"},
    }
    return wav_tags.tags("inbound", **usual | fields)


def tagged_wav(path: Path, parameters: dict[str, Any], *, container: str = "WAV") -> Path:
    """Write a second of a ramp with all tags."""
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format=container) as wav:
        for name, text in build_tags(parameters=parameters).strings().items():
            setattr(wav, name, text)
        wav.write(np.arange(8000, dtype=np.int16))
    builder.append(path, wav_tags.id3_chunk(parameters))
    return path


def entries_of(chunk: bytes) -> dict[str, list[str]]:
    """Return the texts of all TXXX entries by name."""
    return {entry.desc: list(entry.text) for entry in read_id3(BytesIO(chunk[8:])).getall("TXXX")}


def output_of(tool: str, *arguments: object) -> str:
    """Return what one of the system's audio tools prints."""
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, check=True)
    return done.stdout.decode()


def test_strings_say_which_call_and_track() -> None:
    """Title, date, artist and comment are what the recording is known by."""
    built = build_tags()
    assert "76ac3c36-aaaa inbound" == built.title
    assert "2026-11-22T20:30:00.000Z" == built.date
    assert "b08dacad" == built.artist
    assert {"Name": "Jane"} == json.loads(built.comment)
    assert built.software.startswith("tapreel ")


def test_empty_strings_are_left_out() -> None:
    """libsndfile refuses an empty string, and a recording may lack its start message."""
    built = build_tags(call_sid="", account_sid="", parameters={})
    assert {"title", "date", "software"} == set(built.strings())
    assert "inbound" == built.title


def test_ids_become_printable_ascii_of_bounded_length() -> None:
    """Ids come from the wire and may be anything; readers disagree on all but ASCII."""
    built = build_tags(call_sid="é\0\r\n\x7f\ud800" + "x" * 10_000, account_sid="名" * 10_000)
    assert "\\xe9\\x00\\r\\n\\x7f\\ud800xxx" == built.title[:25]
    assert wav_tags.LONGEST_ID + len(" inbound") == len(built.title)
    assert wav_tags.LONGEST_ID == len(built.artist)
    assert (built.title + built.artist).isascii()


@given(st.dictionaries(st.text(max_size=300), JSON_VALUE | st.text(max_size=2500)))
def test_comment_is_whole_json_of_what_fits(parameters: dict[str, Any]) -> None:
    """Cut between parameters, never within one, and short enough for libsndfile."""
    comment = build_tags(parameters=parameters).comment
    kept = json.loads(comment or "{}")
    assert [item for item in parameters.items() if item[0] in kept] == list(kept.items())
    size = len(comment.encode())
    left = wav_tags.LONGEST_COMMENT_BYTES - 1 - max(2, size) - (2 if kept else 0)
    left_out = {name: value for name, value in parameters.items() if name not in kept}
    sizes = (len(json.dumps({n: v}).replace("\x7f", "......")) for n, v in left_out.items())
    assert all(size - 2 > left for size in sizes)
    assert size < wav_tags.LONGEST_COMMENT_BYTES
    seen = {unicodedata.category(letter) for letter in comment if letter not in "\u200c\u200d"}
    assert set() == seen & {"Cc", "Cs", "Zl", "Zp"}


def test_comment_is_in_the_script_of_the_parameters() -> None:
    """Letters, emoji and their joiners stand as they are; what turns or hides text does not."""
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    comment = build_tags(
        parameters={"姓名": "王小明", "Имя": family, "x": "a\u202eb\x9b\u200b"}
    ).comment
    assert f'{{"姓名": "王小明", "Имя": "{family}", "x": "a\\u202eb\\u009b\\u200b"}}' == comment


def test_comment_uses_the_room_there_is() -> None:
    """A parameter that fits to the last byte is kept, one byte more is not."""
    braces = len('{"a": ""}')
    fitting = build_tags(parameters={"a": "x" * (1999 - braces)}).comment
    assert 1999 == len(fitting)
    assert "" == build_tags(parameters={"a": "x" * (2000 - braces)}).comment


def test_a_parameter_that_is_too_long_hides_none_behind_it() -> None:
    """It is left out, and in ID3 something says so; the rest is there."""
    built = build_tags(parameters={"first": "1", "long": "x" * 3000, "last": "2"})
    assert {"first": "1", "last": "2"} == json.loads(built.comment)
    many = {f"p{n}": "x" * (wav_tags.LONGEST_VALUE_BYTES - 99) for n in range(10)}
    found = entries_of(wav_tags.id3_chunk(many | {"last": "2"}))
    assert {
        "last": ["2"],
        wav_tags.LEFT_OUT: ["2 more are in recording.json"],
    }.items() <= found.items()


@pytest.mark.parametrize("value", [object(), float("nan")], ids=["object", "nan"])
def test_values_that_are_no_json_do_not_stop_a_recording(value: object) -> None:
    """No parser gives them, and yet the audio matters more."""
    assert build_tags(parameters={"a": value}).comment
    assert wav_tags.id3_chunk({"a": value})


def test_a_bottomless_value_does_not_stop_a_recording() -> None:
    """The JSON encoder gives up on deep nesting; the entry then says that it did."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert '"?"' == parameter_text(deep)
    assert {"a": ['"?"']} == entries_of(wav_tags.id3_chunk({"a": deep}))


def test_libsndfile_reads_every_string_back(tmp_path: Path) -> None:
    """The longest strings that we write hide none of the others."""
    parameters = {f"k{n}": "名" * 66 for n in range(20)}
    path = tmp_path / "a.wav"
    built = build_tags(call_sid="c" * 999, account_sid="a" * 999, parameters=parameters)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as wav:
        for name, text in built.strings().items():
            setattr(wav, name, text)
        wav.write(np.zeros(80, np.int16))
    with soundfile.SoundFile(path) as wav:
        assert (built.title, built.date, built.artist, built.comment) == (
            wav.title,
            wav.date,
            wav.artist,
            wav.comment,
        )
        assert wav.software.startswith(built.software)


@given(st.dictionaries(TEXT, JSON_VALUE | TEXT, min_size=1, max_size=20))
def test_mutagen_reads_every_parameter_back(parameters: dict[str, Any]) -> None:
    """Any names and values, except that NUL is shown as a symbol."""
    expected: dict[str, list[str]] = {}
    for name, value in parameters.items():
        shown = parameter_text(value).replace("\0", "␀")
        # Two names may become one: mutagen then puts their values together.
        expected.setdefault(name.replace("\0", "␀"), []).append(shown)
    assert expected == entries_of(wav_tags.id3_chunk(parameters))


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_a_chunk_is_well_formed(parameters: dict[str, str]) -> None:
    """Name, length, even padding; no parameters, no chunk; lone surrogates do no harm."""
    chunk = wav_tags.id3_chunk(parameters)
    if not parameters:
        assert b"" == chunk
        return
    name, length = struct.unpack_from("<4sI", chunk)
    assert b"id3 " == name
    assert 8 + length + length % 2 == len(chunk)
    assert b"ID3\x04\x00\x00" == chunk[8:14]
    assert b"\0" * (length % 2) == chunk[8 + length :]


def test_values_that_are_not_text_are_json() -> None:
    """Programs can read them back; people can, too."""
    chunk = wav_tags.id3_chunk({"n": 5, "b": True, "nothing": None, "o": {"Straße": [1, 2.5]}})
    expected = {"n": ["5"], "b": ["true"], "nothing": ["null"], "o": ['{"Straße": [1, 2.5]}']}
    assert expected == entries_of(chunk)


def test_a_huge_value_is_cut_visibly_within_a_letter() -> None:
    """Cut at a byte limit, but between letters."""
    (text,) = entries_of(wav_tags.id3_chunk({"a": "x" + "é" * wav_tags.LONGEST_VALUE_BYTES}))["a"]
    assert "x" + "é" * (wav_tags.LONGEST_VALUE_BYTES // 2 - 1) + "…" == text


def test_a_huge_name_is_cut_visibly() -> None:
    """Nobody needs a longer one, and readers hold them in small buffers."""
    (name,) = entries_of(wav_tags.id3_chunk({"n" * 5000: "v"}))
    assert "n" * wav_tags.LONGEST_NAME_BYTES + "…" == name


def test_parameters_beyond_all_measure_are_counted() -> None:
    """What does not fit is not dropped silently."""
    chunk = wav_tags.id3_chunk({f"k{n}": "v" * 60_000 for n in range(20)})
    entries = entries_of(chunk)
    assert len(chunk) < wav_tags.LONGEST_TAG_BYTES + 200
    assert 9 == len(entries)
    assert ["12 more are in recording.json"] == entries[wav_tags.LEFT_OUT]


@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_the_tag_leaves_the_samples_alone(tmp_path: Path, container: str) -> None:
    """libsndfile reads the same samples, and the sizes in the header are right."""
    path = tagged_wav(tmp_path / "a.wav", NINETY, container=container)
    samples, rate = soundfile.read(path, dtype="int16")
    assert 8000 == rate
    assert np.array_equal(np.arange(8000), samples)
    content = path.read_bytes()
    size = struct.unpack_from("<I", content, 4) if container == "WAV" else None
    size = size or struct.unpack_from("<Q", content, 20)
    assert (len(content) - 8,) == size


def test_mutagen_reads_the_whole_file(tmp_path: Path) -> None:
    """All ninety parameters, and a length that fits."""
    wav = read_wave(tagged_wav(tmp_path / "a.wav", NINETY))
    assert NINETY == {entry.desc: entry.text[0] for entry in wav.tags.getall("TXXX")}
    assert 1.0 == wav.info.length


@pytest.mark.needs("ffprobe")
@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_ffprobe_shows_the_strings(tmp_path: Path, container: str) -> None:
    """ffprobe prefers INFO to ID3, so parameters are in its comment."""
    path = tagged_wav(tmp_path / "a.wav", {"Straße": "名"}, container=container)
    shown = json.loads(output_of("ffprobe", "-v", "error", "-of", "json", "-show_format", path))
    found = shown["format"]["tags"]
    assert "76ac3c36-aaaa inbound" == found["title"]
    assert "2026-11-22T20:30:00.000Z" == found["date"]
    assert "b08dacad" == found["artist"]
    assert '{"Straße": "名"}' == found["comment"]
    assert 1.0 == float(shown["format"]["duration"])


@pytest.mark.needs("ffprobe")
def test_ffprobe_reads_the_id3_entries_where_there_are_no_strings(tmp_path: Path) -> None:
    """The chunk is where ffmpeg looks for one, non-ASCII names included."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(80, np.int16), 8000, "PCM_16")
    builder.append(path, wav_tags.id3_chunk(NINETY))
    shown = json.loads(output_of("ffprobe", "-v", "error", "-of", "json", "-show_format", path))
    assert NINETY == shown["format"]["tags"]


@pytest.mark.needs("mediainfo")
@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_mediainfo_shows_every_parameter(tmp_path: Path, container: str) -> None:
    """By its own name where that is ASCII; other names it garbles, but the values are right."""
    plain = {f"Key{n}": f"値{n} 🎧" for n in range(90)}
    path = tagged_wav(tmp_path / "a.wav", plain, container=container)
    general = json.loads(output_of("mediainfo", "--Output=JSON", path))["media"]["track"][0]
    assert plain == general["extra"]
    assert "76ac3c36-aaaa inbound" == general["Title"]
    path = tagged_wav(tmp_path / "b.wav", NINETY, container=container)
    shown = output_of("mediainfo", path)
    assert [] == [value for value in NINETY.values() if f": {value}\n" not in shown]


@pytest.mark.needs("exiftool")
@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_exiftool_shows_every_parameter(tmp_path: Path, container: str) -> None:
    """Each with its name, whatever letters that has."""
    path = tagged_wav(tmp_path / "a.wav", NINETY, container=container)
    shown = json.loads(output_of("exiftool", "-j", "-G4", "-a", path))[0]
    found = {value for key, value in shown.items() if key.endswith("UserDefinedText")}
    assert {f"({name}) {value}" for name, value in NINETY.items()} == found
    assert "76ac3c36-aaaa inbound" in shown.values()


def test_nothing_to_append_changes_nothing() -> None:
    """Without parameters the file stays as it was closed."""
    assert wav_tags.Appended((), b"") == wav_tags.appended(b"RIFF....WAVE", 1000, b"")


def test_an_odd_file_is_padded_first() -> None:
    """RIFF chunks start at even positions."""
    todo = wav_tags.appended(b"RIFF\xff\xff\xff\xffWAVEfmt ", 1001, b"id3 \2\0\0\0ab")
    assert b"\0id3 \2\0\0\0ab" == todo.tail
    assert ((4, struct.pack("<I", 1001 + 11 - 8)),) == todo.patches


def test_rf64_keeps_its_size_in_ds64() -> None:
    """The 32-bit size stays at its largest value, which says where to look."""
    todo = wav_tags.appended(b"RF64\xff\xff\xff\xffWAVEds64" + bytes(48), 5 * 2**30, bytes(10))
    assert ((20, struct.pack("<Q", 5 * 2**30 + 2)),) == todo.patches


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"", 0),
        (b"RIFF....AVI LIST", 1000),
        (b"RF64....WAVEfmt ", 1000),
        (b"caff....WAVEds64", 1000),
        (b"RIFF....WAVEfmt ", 2**32),
    ],
)
def test_what_is_no_wav_file_is_refused(head: bytes, length: int) -> None:
    """Better no tag than a wrong patch."""
    with pytest.raises(UnreadableError):
        wav_tags.appended(head, length, bytes(10))
