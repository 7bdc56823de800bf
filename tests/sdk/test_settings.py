from pathlib import Path

import pytest

from serai.errors import SettingsError
from serai.settings import DEFAULT_ADDRESS, Settings, is_loopback, load_settings


def write_config(home: Path, text: str) -> None:
    (home / ".serai").mkdir(exist_ok=True)
    (home / ".serai" / "config.toml").write_text(text)


def write_operator_key(folder: Path, key: str = "simoperator") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "operator.key").write_text(key + "\n")


def test_without_anything_it_is_this_machine_and_no_key():
    assert load_settings() == Settings(DEFAULT_ADDRESS, None)


def test_serai_variables_beat_algorithmias(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALGORITHMIA_API", "https://old.example")
    monkeypatch.setenv("ALGORITHMIA_API_KEY", "simold")
    assert load_settings() == Settings("https://old.example", "simold")
    monkeypatch.setenv("SERAI_ADDRESS", "https://new.example/")
    monkeypatch.setenv("SERAI_API_KEY", "simnew")
    assert load_settings() == Settings("https://new.example", "simnew")


def test_arguments_beat_everything(home: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(home, '[profiles.default]\naddress = "https://profile.example"\nkey = "simprofile"\n')
    monkeypatch.setenv("SERAI_ADDRESS", "https://environment.example")
    monkeypatch.setenv("SERAI_API_KEY", "simenvironment")
    assert load_settings("simme", "http://me.example:1") == Settings("http://me.example:1", "simme")


def test_the_default_profile_comes_after_the_environment_and_a_named_one_before(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    write_config(
        home,
        '[profiles.default]\naddress = "https://default.example"\nkey = "simdefault"\n'
        '[profiles.work]\naddress = "https://work.example"\nkey = "simwork"\n',
    )
    assert load_settings() == Settings("https://default.example", "simdefault")
    monkeypatch.setenv("SERAI_ADDRESS", "https://environment.example")
    monkeypatch.setenv("SERAI_API_KEY", "simenvironment")
    assert load_settings() == Settings("https://environment.example", "simenvironment")
    assert load_settings(profile="work") == Settings("https://work.example", "simwork")


def test_a_profiles_key_never_goes_to_another_server(home: Path):
    write_config(home, '[profiles.default]\naddress = "https://prod.example/"\nkey = "simprod"\n')
    assert load_settings(address="https://prod.example").key == "simprod"
    assert load_settings(address="https://other.example").key is None
    assert load_settings(profile="default", address="http://127.0.0.1:8000").key is None


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000", "http://localhost:9", "http://[::1]:8000"])
def test_the_operators_key_is_used_for_this_machine(home: Path, address: str):
    write_operator_key(home / ".serai")
    assert load_settings(address=address).key == "simoperator"
    assert load_settings("simmine", address).key == "simmine"


@pytest.mark.parametrize("address", ["https://serai.example", "http://10.0.0.5:8000", "http://127.0.0.1.example:8000"])
def test_the_operators_key_never_leaves_this_machine(home: Path, address: str):
    write_operator_key(home / ".serai")
    assert load_settings(address=address).key is None


def test_serai_home_says_where_the_operators_key_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_operator_key(home / ".serai", "simwrong")
    write_operator_key(tmp_path / "elsewhere", "simright")
    monkeypatch.setenv("SERAI_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().key == "simright"


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8000",
        "ftp://a.example",
        "http://",
        "http://a.example:99999",
        "http://user:secret@a.example",
        "http://[::1",
        "http://a.example?key=1",
    ],
)
def test_a_malformed_address_is_refused(address: str):
    with pytest.raises(SettingsError) as caught:
        load_settings(address=address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["sim key", "sim\r\nX-Evil: 1", "simé", " "])
def test_a_key_that_no_header_could_hold_is_refused_without_being_shown(key: str):
    with pytest.raises(SettingsError) as caught:
        load_settings(key, "https://a.example")
    assert key not in str(caught.value) or not key.strip()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("profiles = 3", "must be tables"),
        ("[profiles.default]\naddress = 3", "table of strings"),
        ('[profiles.default]\napi_key = "x"', "unknown api_key"),
        ("[profiles.default", "cannot read"),
    ],
)
def test_a_broken_config_file_says_where_it_is_broken(home: Path, text: str, complaint: str):
    write_config(home, text)
    with pytest.raises(SettingsError, match=complaint):
        load_settings()


def test_a_profile_that_is_not_there_names_those_that_are(home: Path):
    write_config(home, '[profiles.work]\nkey = "simwork"\n')
    with pytest.raises(SettingsError, match="there: work"):
        load_settings(profile="wrok")


def test_the_key_is_not_in_the_repr():
    assert "simsecret" not in repr(Settings("http://a", "simsecret"))


def test_loopback_is_decided_without_a_name_server():
    assert is_loopback("http://127.9.9.9")
    assert not is_loopback("http://localhost.example")
