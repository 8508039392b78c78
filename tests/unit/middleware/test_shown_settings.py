"""What the admin port tells of the settings of a process."""

from canary_mw.middleware.shown_settings import OPTIONS, shown_settings
from canary_mw.server.settings import Settings


def test_a_setting_is_shown_with_where_it_comes_from() -> None:
    environ = {"CANARY_MW_GRACE": "5", "CANARY_MW_PORT": "9000", "CANARY_MW_WORKERS": "1", OPTIONS: "port"}
    settings = Settings(grace=5, port=9000, strict=True)
    shown = {each["name"]: each for each in shown_settings(settings, environ, ["strict"])}
    assert {name: shown[name]["origin"] for name in ("grace", "port", "workers", "strict", "host")} == {
        "grace": "environment",
        "port": "option",
        "workers": "default",
        "strict": "argument",
        "host": "default",
    }
    assert (shown["grace"]["value"], shown["grace"]["variable"]) == ("5", "CANARY_MW_GRACE")
    assert shown["hop_id"]["variable"] == "CANARY_MW_ID"


def test_a_secret_is_only_said_to_be_set() -> None:
    settings = Settings(
        header_key_file="/run/secrets/key",
        secrets="/run/secrets",
        ssl_certfile="/tls/cert.pem",
        ssl_keyfile="/tls/key.pem",
        upstream=("shop=http://10.0.0.1:80", "cart=http://10.0.0.2"),
    )
    shown = {each["name"]: each["value"] for each in shown_settings(settings, {})}
    assert shown["header_key_file"] == shown["secrets"] == shown["ssl_keyfile"] == "set"
    assert shown["ssl_certfile"] == "/tls/cert.pem"
    assert shown["upstream"] == "shop=http://10.0.0.1:80, cart=http://10.0.0.2"
    assert shown["cache"] == shown["rules"] == ""
