"""The agent's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mycel.agent.settings import parse_settings
from mycel.flow.redact import Redaction
from mycel.kit.config import SettingsError, read_config_dir

NODE = {"K8S_NODE_NAME": "n1"}


def test_defaults_and_values() -> None:
    """Keys are Cilium's."""
    found = parse_settings({"monitor-aggregation-interval": "1m30s", "cni-exclusive": "false", "mtu": "9000"}, NODE)
    assert (found.node_name, found.monitor_interval_s, found.cni_exclusive, found.mtu) == ("n1", 90.0, False, 9000)
    assert (found.health_port, found.socket) == (9879, Path("/var/run/cilium/cilium.sock"))
    assert parse_settings({"monitor-aggregation": "none"}, NODE).trace_interval_s == 0


def test_what_flows_hide() -> None:
    """Nothing but passwords, unless something is said; without Hubble Envoy is asked for no log."""
    assert parse_settings({}, NODE).redaction == Redaction()
    found = parse_settings(
        {
            "hubble-redact-enabled": "true",
            "hubble-redact-http-urlquery": "true",
            "hubble-redact-http-userinfo": "false",
            "hubble-redact-http-headers-allow": "X-Team, x-run",
        },
        NODE,
    )
    assert found.redaction == Redaction(
        enabled=True, url_query=True, user_info=False, allow=frozenset({"x-team", "x-run"})
    )
    assert found.shown_headers == ("x-run", "x-team")
    assert parse_settings({"enable-hubble": "false"}, NODE).shown_headers is None


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"enable-hubble": "yes"}, "enable-hubble"),
        ({"agent-health-port": "-1"}, "agent-health-port"),
        ({"monitor-aggregation-interval": "5"}, "monitor-aggregation-interval"),
        ({"monitor-aggregation-interval": "5s!"}, "monitor-aggregation-interval"),
        ({"tunnel-protocol": "geneve"}, "tunnel-protocol"),
        ({"routing-mode": "native"}, "routing-mode"),
        ({"ipam": "cluster-pool"}, "ipam"),
        ({"hubble-redact-enabled": "on"}, "hubble-redact-enabled"),
        ({"hubble-redact-http-headers-allow": "x-a,:path"}, "hubble-redact-http-headers-allow has ':path'"),
        (
            {"hubble-redact-http-headers-allow": "x-a", "hubble-redact-http-headers-deny": "x-b"},
            "hubble-redact-http-headers-deny are both given",
        ),
        ({"l2-announcements-lease-duration": "4s"}, "l2-announcements-lease-duration is 4s"),
    ],
)
def test_unusable_values_are_named(config: dict[str, str], names: str) -> None:
    """The agent stops with the key, it does not guess."""
    with pytest.raises(SettingsError, match=names):
        parse_settings(config, NODE)


def test_the_node_has_to_be_known() -> None:
    """Nothing works without its name."""
    with pytest.raises(SettingsError, match="K8S_NODE_NAME"):
        parse_settings({}, {})


def test_a_mounted_config_map(tmp_path: Path) -> None:
    """Files are keys; the mount's own links are not."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "debug").write_text("true\n")
    assert read_config_dir(tmp_path) == {"debug": "true"}
    assert read_config_dir(tmp_path / "missing") == {}
