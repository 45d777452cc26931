"""Reading WAV files as payloads."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from starter.errors import AudioError, ConfigError
from starter.models import Codec
from starter.simulator.audio import read_payload
from starter.simulator.stream_info import ByteOrder

WriteWav = Callable[..., Path]


def mulaw_wav(path: Path, codes: bytes) -> Path:
    """A mu-law WAV file with these very bytes, behind a chunk of odd size."""
    chunks = (
        b"fmt " + (16).to_bytes(4, "little") + bytes.fromhex("07000100401f0000401f000001000800")
    )
    chunks += b"note" + (3).to_bytes(4, "little") + b"abc\x00"
    chunks += b"data" + len(codes).to_bytes(4, "little") + codes
    path.write_bytes(b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks)
    return path


def test_stored_codes_go_out_untouched(tmp_path: Path) -> None:
    """All 256 mu-law codes, negative zero included."""
    path = mulaw_wav(tmp_path / "codes.wav", bytes(range(256)))
    assert bytes(range(256)) == read_payload(path, Codec.PCMU)


def test_stored_alaw_goes_out_untouched(write_wav: WriteWav) -> None:
    """An A-law file is its own payload."""
    path = write_wav(subtype="ALAW")
    assert path.read_bytes()[-4000:] == read_payload(path, Codec.PCMA)


@pytest.mark.parametrize(("codec", "subtype"), [(Codec.PCMU, "ULAW"), (Codec.PCMA, "ALAW")])
def test_pcm_is_encoded(write_wav: WriteWav, codec: Codec, subtype: str) -> None:
    """PCM becomes what libsndfile would have stored."""
    stored = read_payload(write_wav("stored.wav", subtype=subtype), codec)
    assert stored == read_payload(write_wav("pcm.wav"), codec)


def test_one_law_becomes_the_other(write_wav: WriteWav) -> None:
    """A mu-law file can be played as A-law."""
    path = write_wav(subtype="ULAW")
    samples, _ = soundfile.read(path, dtype="int16")
    soundfile.write(path.with_name("a.raw"), samples, 8000, subtype="ALAW", format="RAW")

    assert path.with_name("a.raw").read_bytes() == read_payload(path, Codec.PCMA)


@pytest.mark.parametrize(
    ("codec", "rate"), [(Codec.L16, 8000), (Codec.L16_16000, 16000), (Codec.L16_24000, 24000)]
)
def test_l16_is_two_bytes_in_the_order_asked_for(
    write_wav: WriteWav, codec: Codec, rate: int
) -> None:
    """Little-endian by default."""
    path = write_wav(rate=rate)
    samples, _ = soundfile.read(path, dtype="int16")

    assert samples.astype("<i2").tobytes() == read_payload(path, codec)
    big = read_payload(path, codec, byte_order=ByteOrder.BIG)
    assert samples.astype(">i2").tobytes() == big


def test_wider_samples_are_cut_to_16_bits(write_wav: WriteWav) -> None:
    """A 24-bit file plays as its 16-bit twin."""
    wide = read_payload(write_wav("wide.wav", subtype="PCM_24"), Codec.L16)
    assert read_payload(write_wav("narrow.wav"), Codec.L16) == wide


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_a_float_file_plays_as_loud_as_it_is(tmp_path: Path, subtype: str) -> None:
    """What is beyond full scale, or no number, is as loud as can be, or silent."""
    values = np.array([0, 1 / 2**15, 0.5, -0.25, 1, -1, 7, -7, np.inf, np.nan])
    path = tmp_path / "float.wav"
    soundfile.write(path, values, 8000, subtype=subtype)
    expected = [0, 1, 16384, -8192, 32767, -32768, 32767, -32768, 32767, 0]
    assert expected == np.frombuffer(read_payload(path, Codec.L16), "<i2").tolist()


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
def test_a_float_file_sounds_like_its_16_bit_twin(write_wav: WriteWav, codec: Codec) -> None:
    """The same samples, written as floats, become the same payload."""
    narrow = write_wav("narrow.wav")
    samples, rate = soundfile.read(narrow, dtype="float32")
    soundfile.write(narrow.with_name("float.wav"), samples, rate, subtype="FLOAT")
    found = read_payload(narrow.with_name("float.wav"), codec)
    assert read_payload(narrow, codec) == found
    assert len(set(found)) > 10


@pytest.mark.parametrize("behind", [b"", b"LIST\4\0\0\0INFO"])
def test_a_file_without_samples_is_refused(tmp_path: Path, behind: bytes) -> None:
    """There is nothing to play, also where other chunks stand behind the empty one."""
    path = mulaw_wav(tmp_path / "empty.wav", b"")
    path.write_bytes(path.read_bytes() + behind)
    with pytest.raises(AudioError, match=r"empty\.wav has no samples: there is nothing to play"):
        read_payload(path, Codec.PCMU)


@pytest.mark.parametrize("data_size", [0, 2**31, 2**32 - 1])
@pytest.mark.parametrize("riff_size", [0, 36, 2**32 - 1])
@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_sizes_left_open_are_those_of_the_file(
    write_wav: WriteWav, data_size: int, riff_size: int, subtype: str
) -> None:
    """What was written into a pipe has a size of 0, or the largest; all samples are played."""
    path = write_wav(subtype=subtype)
    expected = read_payload(path, Codec.PCMU)
    content = path.read_bytes()
    at = content.index(b"data") + 4
    piped = content[:at] + data_size.to_bytes(4, "little") + content[at + 4 :]
    path.write_bytes(piped[:4] + riff_size.to_bytes(4, "little") + piped[8:])
    assert 4000 == len(expected)
    assert expected == read_payload(path, Codec.PCMU)


@pytest.mark.parametrize("sound", [bytes(8000), b"\x7f" * 8000, b"~\0" * 4000])
def test_silence_of_an_open_size_is_no_empty_file(tmp_path: Path, sound: bytes) -> None:
    """Zeros behind the header could be read as chunks of size 0."""
    path = mulaw_wav(tmp_path / "silence.wav", b"")
    path.write_bytes(path.read_bytes() + sound)
    assert sound == read_payload(path, Codec.PCMU)


@pytest.mark.parametrize("rate", [11025, 16000, 44100, 48000])
@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_another_rate_is_converted_on_request(write_wav: WriteWav, rate: int, subtype: str) -> None:
    """As long and as high as before."""
    path = write_wav(rate=rate, subtype=subtype, seconds=1)
    payload = read_payload(path, Codec.L16, resample=True)
    same, _ = soundfile.read(write_wav(rate=8000, subtype=subtype, seconds=1), dtype="int16")
    samples = np.frombuffer(payload, "<i2").astype(float)
    spectra = [np.abs(np.fft.rfft(one.astype(float))) for one in (same, samples)]
    assert 8000 == len(samples)
    assert abs(int(spectra[0].argmax()) - int(spectra[1].argmax())) <= 1
    assert 0.9 < samples.std() / same.astype(float).std() < 1.1


def test_what_resamples_may_be_missing(
    write_wav: WriteWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ConfigError, match=r"tapreel\[dsp\]"):
        read_payload(write_wav(rate=16000), Codec.PCMU, resample=True)


@pytest.mark.parametrize(
    ("settings", "codec", "why"),
    [
        ({"channels": 2}, Codec.PCMU, "has 2 channels; a track is mono"),
        ({"rate": 16000}, Codec.PCMU, "has 16000 samples/s; PCMU needs 8000: --resample"),
        ({"rate": 8000}, Codec.L16_24000, "has 8000 samples/s; L16@24000h needs 24000"),
    ],
)
def test_the_wrong_kind_of_wav_is_refused(
    write_wav: WriteWav, settings: dict[str, int], codec: Codec, why: str
) -> None:
    """Channels and rate have to fit; nothing is mixed or resampled behind the user's back."""
    with pytest.raises(AudioError, match=why):
        read_payload(write_wav(**settings), codec)


def test_another_sound_format_is_refused(tmp_path: Path) -> None:
    """A FLAC file is sound, but no WAV."""
    path = tmp_path / "sound.flac"
    soundfile.write(path, np.zeros(80, np.int16), 8000)
    with pytest.raises(AudioError, match="no WAV file but FLAC"):
        read_payload(path, Codec.PCMU)


def test_a_wav_without_a_data_chunk_is_refused(tmp_path: Path) -> None:
    """Something that starts like a mu-law file and ends before the sound."""
    path = mulaw_wav(tmp_path / "cut.wav", b"")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(AudioError, match="cut"):
        read_payload(path, Codec.PCMU)


def test_raw_sound_is_refused(tmp_path: Path) -> None:
    """Bytes without a header could be anything."""
    path = tmp_path / "sound.raw"
    path.write_bytes(bytes(1600))
    with pytest.raises(AudioError, match="cannot be read as a WAV file"):
        read_payload(path, Codec.PCMU)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all", bytes(100)])
def test_what_is_no_sound_is_refused(tmp_path: Path, content: bytes) -> None:
    """Any other file gives one clear line."""
    path = tmp_path / "other.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"other\.wav cannot be read as a WAV file"):
        read_payload(path, Codec.PCMU)
