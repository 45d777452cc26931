"""Where settings come from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from starter.config import Credentials, Settings, base_url, load_settings
from starter.errors import ConfigError
from starter.models import Target
from starter.tokens import StaticToken, StreamKey

PROJECT = "b08dacad-0000-4000-8000-000000000001"
FULL = {
    "SIGNALWIRE_PROJECT_ID": PROJECT,
    "SIGNALWIRE_API_TOKEN": "PT-secret",
    "SIGNALWIRE_SPACE": "example",
}
TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"
KEY = "k" * 32

SecretFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("space", "url"),
    [
        ("example", "https://example.signalwire.com"),
        (" example ", "https://example.signalwire.com"),
        ("example.signalwire.com", "https://example.signalwire.com"),
        ("Api.Example.org:8443", "https://api.example.org:8443"),
        ("https://example.signalwire.com/", "https://example.signalwire.com"),
        ("https://example", "https://example"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost:8080", "http://localhost:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://127.0.0.1:8080", "https://127.0.0.1:8080"),
    ],
)
def test_a_space_has_many_spellings(space: str, url: str) -> None:
    """A name, a host, an https URL, or a loopback address on plain http."""
    assert url == base_url(space)


@pytest.mark.parametrize(
    "space",
    [
        "http://example.signalwire.com",
        "ftp://example.org",
        "https://u:p@example.org",
        "example.org/path",
        "example.org?x=1",
        "exa mple",
        "",
        "example.org:port",
        "https://",
    ],
)
def test_other_spaces_are_refused(space: str) -> None:
    """Plain http to elsewhere above all: it would show the credentials."""
    with pytest.raises(ConfigError, match="SIGNALWIRE_SPACE"):
        base_url(space)


def test_paths_are_escaped() -> None:
    """A stream's name may hold anything and stays one segment."""
    url = Credentials(PROJECT, "https://x.example", "t").streams_url(Target.CALL, "c", "a/b ?ü")
    start = f"https://x.example/api/laml/2010-04-01/Accounts/{PROJECT}/Calls/c/Streams"

    assert f"{start}/a%2Fb%20%3F%C3%BC" == url


def test_credentials_come_from_the_environment() -> None:
    """The names are those of the provider's own SDK."""
    credentials = Settings(FULL).credentials()

    assert Credentials(PROJECT, "https://example.signalwire.com", "PT-secret") == credentials
    assert "PT-secret" not in repr(credentials)
    assert "PT-secret" not in repr(Settings(FULL))


def test_the_api_token_may_be_in_a_file(secret_file: SecretFile) -> None:
    """A file is as good as the environment, and read without its line end."""
    environ = FULL | {"SIGNALWIRE_API_TOKEN": ""}
    environ["SIGNALWIRE_API_TOKEN_FILE"] = str(secret_file("PT-from-file\n"))

    assert "PT-from-file" == Settings(environ).credentials().api_token


def test_everything_missing_is_named_at_once() -> None:
    """One line names all that is to be set."""
    with pytest.raises(
        ConfigError,
        match="not set: SIGNALWIRE_PROJECT_ID, SIGNALWIRE_API_TOKEN, SIGNALWIRE_SPACE",
    ):
        Settings({}).credentials()


def test_a_dry_run_needs_no_api_token() -> None:
    """Without a token to send, none has to be there."""
    environ = FULL | {"SIGNALWIRE_API_TOKEN": ""}
    assert not Settings(environ).credentials(token_needed=False).api_token


def test_a_malformed_project_id_is_a_configuration_error() -> None:
    """The project id is the account's sid."""
    with pytest.raises(ConfigError, match="SIGNALWIRE_PROJECT_ID"):
        Settings(FULL | {"SIGNALWIRE_PROJECT_ID": "x"}).credentials()


def test_the_simulated_provider_needs_id_and_token_only() -> None:
    """The space is the simulated provider's own address."""
    assert (PROJECT, "PT-secret") == Settings(FULL | {"SIGNALWIRE_SPACE": ""}).account()
    with pytest.raises(ConfigError, match="any UUID, or AC and 32 hex digits"):
        Settings({}).account()


def test_a_flag_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    """Each source is read in its turn, and an empty value counts as none."""
    path = tmp_path / "tapreel.toml"
    path.write_text('[receiver]\nport = 1\n[starter]\nurl = "wss://file"\ntrack = "both_tracks"\n')
    settings = load_settings(str(path), {"TAPREEL_URL": "wss://environment", "TAPREEL_TRACK": ""})

    assert "wss://flag" == settings.text("url", "wss://flag")
    assert "wss://environment" == settings.text("url")
    assert "both_tracks" == settings.text("track")
    assert settings.text("space") is None


def test_a_password_does_not_show(tmp_path: Path) -> None:
    """Neither that of a callback in the file, nor one in an address that is none."""
    path = tmp_path / "tapreel.toml"
    path.write_text('[starter]\nstatus_callback = "https://u:hunter22@h.example/"\n')
    with pytest.raises(ConfigError, match="SIGNALWIRE_SPACE is not an address") as refusal:
        base_url("https://u:hunter22/@example")

    assert "hunter22" not in repr(load_settings(str(path), {})) + str(refusal.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[starter", "is not TOML"),
        ("starter = 1", "must be a table"),
        ("[starter]\nspcae = 'x'", "unknown setting starter.spcae"),
        ("[starter]\nspace = 1", "starter.space must be a string"),
        ("[starter]\napi_token = 'x'", "unknown setting"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """Misspelled settings are found, and secrets have no place in the file."""
    path = tmp_path / "tapreel.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        load_settings(str(path), {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(str(tmp_path / "none.toml"), {})


def test_no_bearer_is_none() -> None:
    """A stream without a token may be requested."""
    assert Settings({}).bearer() is None


def test_bearers_are_taken_in_order(secret_file: SecretFile) -> None:
    """Flags, then the environment with its keys first, then the file."""
    token_file = str(secret_file(TOKEN, "token"))
    key_file = str(secret_file(KEY, "key"))
    environ = {
        "TAPREEL_STREAM_KEY": "e" * 32,
        "TAPREEL_STREAM_KEY_FILE": key_file,
        "TAPREEL_TOKENS": f"{OTHER},{TOKEN}",
        "TAPREEL_TOKEN_FILE": token_file,
    }
    found = []
    for name in [None, *environ]:
        environ.pop(name or "", None)
        found.append(Settings(environ).bearer())

    assert [
        StreamKey(b"e" * 32),
        StreamKey(KEY.encode()),
        StaticToken(OTHER),
        StaticToken(TOKEN),
        None,
    ] == found
    full = Settings({"TAPREEL_STREAM_KEY": "e" * 32})
    assert StaticToken(TOKEN) == full.bearer(token_file=token_file)
    assert StreamKey(KEY.encode()) == full.bearer(key_file=key_file)
    table = {"bearer_token_file": token_file}
    assert StaticToken(TOKEN) == Settings({}, table).bearer()
    table["stream_key_file"] = key_file
    assert StreamKey(KEY.encode()) == Settings({}, table).bearer()


def test_the_stream_key_alone(secret_file: SecretFile) -> None:
    """A flag beats the environment; no key at all is an error."""
    key_file = str(secret_file(KEY))
    environ = {"TAPREEL_STREAM_KEY": "e" * 32}

    assert StreamKey(KEY.encode()) == Settings(environ).stream_key(key_file)
    assert StreamKey(b"e" * 32) == Settings(environ).stream_key()
    assert StreamKey(KEY.encode()) == Settings({"TAPREEL_STREAM_KEY_FILE": key_file}).stream_key()
    with pytest.raises(ConfigError, match="no stream key"):
        Settings({}).stream_key()
