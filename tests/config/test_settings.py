"""Settings: every switch and variable, precedence, and one line that names the culprit for everything wrong."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from tornado_backups.config.settings import Settings, database_url, help_text, load, load_settings
from tornado_backups.config.settings_table import OPTIONS
from tornado_backups.domain.errors import UsageError

KEY = "0123456789abcdef0123456789abcdef"


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(argv, environ)
    assert "\n" not in caught.value.sentence
    assert caught.value.exit_status == 2
    return caught.value.sentence


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings([], {})
    assert settings == Settings(
        listen="127.0.0.1:8080",
        tls_cert=None,
        tls_key=None,
        tls_client_ca=None,
        trusted_proxies=(),
        unix_trusted=False,
        provider="filesystem",
        config_local_path=Path.home() / ".backup-repository",
        namespace="backup-repository",
        data_dir=Path.home() / ".local/share/tornado-backups",
        db_url="",
        db_hostname="",
        db_port=5432,
        db_user="",
        db_password="",
        db_name="",
        db_wait=0,
        storage_url="",
        use_google_cloud=False,
        storage_health_timeout=5,
        storage_io_timeout=7200,
        scrub_interval=30 * 86400,
        http_upload_timeout=10800,
        http_download_timeout=10800,
        idle_timeout=60,
        chunked_commit_grace=2,
        max_concurrent_uploads=8,
        lease_time=30,
        append_only=False,
        jwt_secret_key="",
        jwt_lifetime=8760 * 3600,
        health_check_key="",
        rate_default_limit=5,
        rate_auth_limit=10,
        rate_collection_health_limit=10,
        rate_server_health_limit=160,
        audit_log=None,
        alert_webhook="",
        alert_webhook_secret="",
        allow_private_callbacks=False,
        log_level="info",
        log_format="text",
        maintenance_interval=60,
        shutdown_timeout=300,
    )
    assert database_url(settings) == f"sqlite://{Path.home()}/.local/share/tornado-backups/registry.sqlite3"


SAMPLES: dict[str, tuple[str, object]] = {
    "listen": ("[::1]:0", "[::1]:0"),
    "tls_cert": ("/c", Path("/c")),
    "tls_key": ("/k", Path("/k")),
    "tls_client_ca": ("/a", Path("/a")),
    "trusted_proxies": ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    "provider": ("kubernetes", "kubernetes"),
    "config_local_path": ("~/x", Path.home() / "x"),
    "namespace": ("ns", "ns"),
    "data_dir": ("rel", Path.cwd() / "rel"),
    "db_url": ("postgresql://u:p@h/n?sslmode=require", "postgresql://u:p@h/n?sslmode=require"),
    "db_hostname": ("h", "h"),
    "db_port": ("1", 1),
    "db_user": ("u", "u"),
    "db_password": ("p", "p"),
    "db_name": ("n", "n"),
    "db_wait": ("1m", 60.0),
    "storage_url": ("s3://b?region=x", "s3://b?region=x"),
    "use_google_cloud": ("true", True),
    "storage_health_timeout": ("500ms", 0.5),
    "storage_io_timeout": ("1h30m", 5400.0),
    "scrub_interval": ("0", 0.0),
    "http_upload_timeout": ("0h05m0s", 300.0),
    "http_download_timeout": ("1w", 604800.0),
    "idle_timeout": ("1d", 86400.0),
    "chunked_commit_grace": ("0s", 0.0),
    "max_concurrent_uploads": ("1", 1),
    "lease_time": ("2s", 2.0),
    "append_only": ("true", True),
    "jwt_secret_key": (KEY, KEY),
    "jwt_lifetime": ("1h", 3600.0),
    "health_check_key": ("c", "c"),
    "rate_default_limit": ("0", 0),
    "rate_auth_limit": ("1", 1),
    "rate_collection_health_limit": ("2", 2),
    "rate_server_health_limit": ("3", 3),
    "audit_log": ("/l", Path("/l")),
    "alert_webhook": ("https://h/x", "https://h/x"),
    "alert_webhook_secret": ("s", "s"),
    "allow_private_callbacks": ("yes", True),
    "log_level": ("WARNING", "warning"),
    "log_format": ("json", "json"),
    "maintenance_interval": ("1s", 1.0),
    "shutdown_timeout": ("0s", 0.0),
}

# What some options need beside them to be a whole configuration.
COMPANIONS = {
    "tls_cert": {"BR_TLS_KEY": "/k"},
    "tls_key": {"BR_TLS_CERT": "/c"},
    "tls_client_ca": {"BR_TLS_CERT": "/c", "BR_TLS_KEY": "/k"},
    "use_google_cloud": {"BR_STORAGE_DRIVER_URL": "bucket"},
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_is_taken_from_switch_variable_and_file(option, tmp_path: Path) -> None:
    text, expected = SAMPLES[option.name]
    file = tmp_path / "value"
    file.write_text(text + "\n")
    companions = COMPANIONS.get(option.name, {})
    forms = [([f"{option.switch}={text}"], {}), ([], {option.env: text}), ([], {f"{option.env}_FILE": str(file)})]
    forms.append(([option.switch], {}) if option.is_flag else ([option.switch, text], {}))
    if option.short:
        forms += [([f"{option.short}{text}"], {}), ([option.short, text], {}), ([f"{option.short}={text}"], {})]
    for argv, environ in forms:
        loaded = load(argv, companions | environ)
        assert getattr(loaded.settings, option.name) == expected
        assert loaded.sources[option.name].split("=")[0] in (option.switch, option.short, *environ)


def test_every_option_has_its_attribute_and_a_sample_and_no_name_is_used_twice() -> None:
    names = [option.name for option in OPTIONS]
    attributes = [field.name for field in dataclasses.fields(Settings) if field.name != "unix_trusted"]
    assert sorted(names) == sorted(attributes) == sorted(SAMPLES)
    for used in ([o.switch for o in OPTIONS], [o.env for o in OPTIONS], [o.short for o in OPTIONS if o.short]):
        assert len(set(used)) == len(used)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_wrong_value_is_one_line_that_names_its_place_and_what_is_allowed(option, tmp_path: Path) -> None:
    wrong = "\x07not!allowed@all:"
    file = tmp_path / "value"
    file.write_text(wrong)
    if option.name in ("config_local_path", "data_dir", "tls_cert", "tls_key", "tls_client_ca", "audit_log"):
        wrong = "\0"  # hardly anything is impossible as a path
        file.write_text(wrong)
    for sentence in (
        refusal(f"{option.switch}={wrong}"),
        refusal(**{option.env: wrong}),
        refusal(**{f"{option.env}_FILE": str(file)}),
    ):
        assert option.switch in sentence or option.env in sentence
        assert option.allowed in sentence
        assert "\x07" not in sentence
        assert not option.secret or "not!allowed" not in sentence
    assert str(file) in sentence


def test_a_switch_wins_over_its_variable_and_the_last_of_several_wins() -> None:
    assert load_settings(["-n", "a", "--namespace=b"], {"BR_NAMESPACE": "c"}).namespace == "b"
    assert load_settings(["-n", "a"], {"BR_NAMESPACE": "../broken"}).namespace == "a"


def test_a_variable_and_its_file_variant_exclude_each_other() -> None:
    sentence = refusal(BR_JWT_SECRET_KEY=KEY, BR_JWT_SECRET_KEY_FILE="/x")
    assert sentence == "BR_JWT_SECRET_KEY and BR_JWT_SECRET_KEY_FILE are both set; keep one of them"


def test_a_variable_set_to_nothing_counts_as_not_set_but_for_the_key_that_signs_tokens() -> None:
    assert load_settings([], {"BR_LISTEN": "", "BR_APPEND_ONLY": "", "BR_DB_URL": "", "BR_LISTEN_FILE": ""}) == (
        load_settings([], {})
    )
    assert "BR_JWT_SECRET_KEY is empty" in refusal(BR_JWT_SECRET_KEY="")
    assert "--jwt-secret-key" in refusal("--jwt-secret-key=")
    assert "-s" in refusal("-s", "")


def test_exactly_one_newline_at_the_end_of_a_file_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" k \n")
    assert load_settings([], {"BR_HEALTH_CHECK_KEY_FILE": str(file)}).health_check_key == " k "
    file.write_text("k\n\n")
    assert "is not allowed" in refusal(BR_HEALTH_CHECK_KEY_FILE=str(file))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"x" * 70000])
def test_files_that_hold_no_value_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    assert f"BR_HEALTH_CHECK_KEY_FILE: the file {file} is " in refusal(BR_HEALTH_CHECK_KEY_FILE=str(file))


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        assert f"BR_JWT_SECRET_KEY_FILE: the file {path} cannot be read (" in refusal(BR_JWT_SECRET_KEY_FILE=str(path))
    assert "BR_LISTEN_FILE" in refusal(BR_LISTEN_FILE="a\0b")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--lisen", "x"], "the switch '--lisen' is not known; did you mean --listen?"),
        (["--lisen=secret"], "the switch '--lisen' is not known"),
        (["--qqqqqq"], "see --help"),
        (["-x"], "the switch '-x' is not known"),
        (["--listen"], "--listen needs a value: host:port"),
        (["--listen", "--append-only"], "--listen needs a value"),
        (["-n"], "-n needs a value"),
        (["stray"], "'stray' is neither a switch nor the value of one"),
        (["--append-only", "false"], "'false' is neither"),
        (["--", "--listen"], "'--listen' is neither"),
    ],
)
def test_wrong_command_lines_are_refused(argv: list[str], words: str) -> None:
    assert words in refusal(*argv)


def test_words_that_are_no_switches_are_left_to_the_command() -> None:
    loaded = load(["a", "-n", "b", "-", "--", "--c"], {})
    assert (loaded.settings.namespace, loaded.rest) == ("b", ["a", "-", "--c"])


@pytest.mark.parametrize("value", ["true", "1", "YES", "on"])
def test_truth_values_are_understood_in_the_usual_spellings(value: str) -> None:
    assert load_settings([], {"BR_APPEND_ONLY": value}).append_only is True
    assert load_settings([f"--append-only={value}"], {}).append_only is True


def test_a_truth_value_can_be_taken_back() -> None:
    assert load_settings(["--append-only=false"], {"BR_APPEND_ONLY": "1"}).append_only is False


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:8080", ":80", "localhost:0", "[::1]:1", "unix:/run/x.sock", "a-b.c:65535"]
)
def test_every_form_of_address_is_taken(listen: str) -> None:
    assert load_settings(["--listen", listen], {}).listen == listen


@pytest.mark.parametrize(
    "listen",
    ["8080", "localhost", "a:b", ":65536", "::1:80", "[::1]", "[x]:1", "*:80", "unix:x", "http://a:1", ":", ":-1"],
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    assert "allowed is host:port, :port, [IPv6]:port or unix:/path" in refusal("--listen", listen)


@pytest.mark.parametrize("word", ["unix", "unix:"])
def test_unix_sockets_are_trusted_only_when_they_are_listed(word: str) -> None:
    settings = load_settings(["--trusted-proxies", f"127.0.0.1,{word},"], {})
    assert (settings.trusted_proxies, settings.unix_trusted) == ((ip_network("127.0.0.1"),), True)


def test_the_defaults_follow_systemd_and_kubernetes() -> None:
    assert load_settings([], {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}).data_dir == Path("/var/lib/a")
    assert load_settings(["--data-dir=/x"], {"STATE_DIRECTORY": "/var/lib/a"}).data_dir == Path("/x")
    assert load_settings([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).provider == "kubernetes"
    assert load_settings(["-pfilesystem"], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).provider == "filesystem"


def test_without_a_home_folder_the_root_folder_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", unknown)
    assert load_settings([], {}).config_local_path == Path("/.backup-repository")


@pytest.mark.parametrize(
    ("argv", "url"),
    [
        (["--data-dir=/d x"], "sqlite:///d x/registry.sqlite3"),
        (["--db-url=sqlite:///a%20b/../c.db"], "sqlite:///c.db"),
        (["--db-url=sqlite:////abs/c.db"], "sqlite:///abs/c.db"),
        (["--db-url=sqlite:///c.db", "--db-password=x"], "sqlite:///c.db"),
        (["--db-user=u"], "postgresql://u@localhost:5432/"),
        (["--db-name=n", "--db-password=p"], "postgresql://:p@localhost:5432/n"),
        (["--db-hostname=h", "--db-port=1"], "postgresql://h:1/"),
        (
            ["--db-user=ü@", "--db-password=p:/?#@%", "--db-name=a/b", "--db-hostname=::1"],
            "postgresql://%C3%BC%40:p%3A%2F%3F%23%40%25@[::1]:5432/a%2Fb",
        ),
        (
            ["--db-user=u", "--db-hostname=/run/postgresql", "--db-name=n"],
            "postgresql://u@/n?host=%2Frun%2Fpostgresql&port=5432",
        ),
        (["--db-port=1"], f"sqlite://{Path.home()}/.local/share/tornado-backups/registry.sqlite3"),
        (["--db-url=postgres://u@h,i/n?x=y", "--db-password=p w"], "postgres://u:p%20w@h,i/n?x=y"),
        (["--db-url=postgres://u:q@h/n", "--db-password=p"], "postgres://u:q@h/n"),
    ],
)
def test_the_database_url_is_made_of_whatever_is_given(argv: list[str], url: str) -> None:
    assert database_url(load_settings(argv, {})) == url


@pytest.mark.parametrize(
    "url", ["mysql://u:geheim@h/n", "sqlite://c.db", "sqlite:///", "sqlite:///x?mode=ro", "geheim"]
)
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    sentence = refusal("--db-url", url)
    assert sentence.startswith(
        "--db-url: the value is not allowed; allowed is sqlite:///absolute/path or postgresql://"
    )
    assert "geheim" not in sentence


@pytest.mark.parametrize(
    ("argv", "url"),
    [
        (["--storage-url=file:///a%20b?create_dir=true"], "file:///a b"),
        (["--storage-url=s3://b?endpoint=h:1&disableSSL=true"], "s3://b?endpoint=h:1&disableSSL=true"),
        (["--storage-url=gs://b"], "gs://b"),
        (["--storage-url=b", "--use-google-cloud"], "gs://b"),
        (["--storage-url=gs://b", "--use-google-cloud"], "gs://b"),
    ],
)
def test_each_kind_of_storage_is_taken(argv: list[str], url: str) -> None:
    assert load_settings(argv, {}).storage_url == url


@pytest.mark.parametrize("url", ["bucket", "s3://", "azblob://c", "file://x", "file:///", "/path", "mem:"])
def test_other_storages_are_refused(url: str) -> None:
    assert "--storage-url: the value " in refusal("--storage-url", url)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--tls-cert=/c"], "--tls-cert needs --tls-key"),
        (["--tls-key=/k"], "--tls-key needs --tls-cert"),
        (["--tls-client-ca=/a"], "--tls-client-ca needs --tls-cert"),
        (["--db-url=sqlite:///x", "--db-name=n"], "--db-url and --db-name both name a database"),
        (["--use-google-cloud"], "--use-google-cloud needs the name of a bucket"),
        (["--use-google-cloud", "--storage-url=s3://b"], "--use-google-cloud needs the name of a bucket"),
    ],
)
def test_options_that_do_not_go_together_are_refused(argv: list[str], words: str) -> None:
    assert words in refusal(*argv)


def test_the_go_servers_environment_and_command_line_are_taken_unchanged() -> None:
    environ = {
        "BR_DB_HOSTNAME": "postgres",
        "BR_DB_USERNAME": "backups",
        "BR_DB_PASSWORD": "backups",
        "BR_DB_NAME": "registry",
        "BR_DB_PORT": "5432",
        "BR_STORAGE_DRIVER_URL": "s3://mybucket?endpoint=localhost:9000&disableSSL=true&s3ForcePathStyle=true&region=eu",
        "BR_JWT_SECRET_KEY": "secret key",
        "BR_HEALTH_CHECK_KEY": "changeme",
        "BR_LOG_LEVEL": "trace",
        "BR_USE_GOOGLE_CLOUD": "false",
        "BR_CONFIG_LOCAL_PATH": "/mnt/filesystem-config",
        "BR_CONFIG_PROVIDER": "filesystem",
        "GIN_MODE": "debug",
    }
    argv = [
        "--listen=:8080",
        "--rate-default-limit",
        "200",
        "-n",
        "backups",
        "--storage-io-timeout=0h05m0s",
        "-p=filesystem",
    ]
    settings = load_settings(argv, environ)
    assert database_url(settings) == "postgresql://backups:backups@postgres:5432/registry"
    assert (settings.log_level, settings.rate_default_limit, settings.storage_io_timeout) == ("debug", 200, 300)


def test_the_repr_of_settings_shows_no_secret() -> None:
    secrets = {option.env: SAMPLES[option.name][0] + "0GEHEIM" for option in OPTIONS if option.secret}
    settings = load_settings([], secrets)
    assert "GEHEIM" not in repr(settings)


def test_help_names_every_switch_and_variable_and_fits_a_terminal() -> None:
    text = help_text("serve")
    for option in OPTIONS:
        assert f"{option.switch}" in text
        assert f"[{option.env}]" in text
    assert max(map(len, text.splitlines())) <= 100
