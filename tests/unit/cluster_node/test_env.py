"""Environment variables."""

import pytest

from mycel.cluster.node import env
from mycel.cluster.node.env import ConfigMissing, Lookup
from tests.unit.cluster_node.samples import pod

LOOKUP = Lookup({"cm": {"k": "v", "not-a-name!": "x"}}.get, {"sec": {"p": b"q"}}.get)


def test_expansion_follows_kubernetes() -> None:
    """$(NAME), $$ and unknown references."""
    names = {"A": "1", "B": "$(A)"}
    assert env.expand("$(A) $$(A) $(X) $(B) $A $$", names) == "1 $(A) $(X) $(A) $A $"


def test_order_is_services_then_env_from_then_env() -> None:
    """Later ones win and see earlier ones."""
    container = {
        "name": "c",
        "envFrom": [
            {"configMapRef": {"name": "cm"}, "prefix": "P_"},
            {"secretRef": {"name": "none", "optional": True}},
        ],
        "env": [
            {"name": "X", "value": "$(P_k)-$(WEB_SERVICE_PORT)"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "p"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "L", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "absent", "optional": True}}},
        ],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    service = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]},
    }
    found = env.build(pod(container), container, [service], LOOKUP)
    assert {key: found[key] for key in ("X", "S", "N", "IP", "L", "P_k")} == {
        "X": "v-80", "S": "q", "N": "cart", "IP": "10.244.0.5", "L": "64", "P_k": "v",
    }  # fmt: skip
    assert "O" not in found
    assert "P_not-a-name!" not in found
    assert found["WEB_PORT_80_TCP_ADDR"] == "10.96.0.9"


def test_services_of_other_namespaces_are_not_announced_but_kubernetes_is() -> None:
    """And links can be switched off."""

    def service(name: str, namespace: str) -> dict[str, object]:
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443, "name": "https"}]},
        }

    all_services = [service("kubernetes", "default"), service("a", "shop"), service("b", "other")]
    hosts = {name for name in env.service_variables(all_services, pod()) if name.endswith("_SERVICE_HOST")}
    assert hosts == {"KUBERNETES_SERVICE_HOST", "A_SERVICE_HOST"}
    unlinked = env.service_variables(all_services, pod(enableServiceLinks=False))
    assert {name for name in unlinked if name.endswith("_SERVICE_HOST")} == {"KUBERNETES_SERVICE_HOST"}
    assert unlinked["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMapKeyRef": {"name": "nope", "key": "k"}}, 'configmap "nope" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "z"}}, "couldn't find key z in configmap shop/cm"),
        ({"secretKeyRef": {"name": "nope", "key": "k"}}, 'secret "nope" not found'),
        ({"fieldRef": {"fieldPath": "spec.nonsense"}}, "spec.nonsense"),
    ],
)
def test_missing_sources_are_named(source: dict[str, object], words: str) -> None:
    """In kubelet's words."""
    container = {"name": "c", "env": [{"name": "X", "valueFrom": source}]}
    with pytest.raises(ConfigMissing, match=words):
        env.build(pod(container), container, [], LOOKUP)
