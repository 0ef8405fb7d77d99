"""Which labels make an identity."""

from __future__ import annotations

import pytest

from mycel.identity.labels import DEFAULT_FILTER, identity_labels, split_label


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("app", True),
        ("app.kubernetes.io/name", True),
        ("io.kubernetes.pod.namespace", True),
        ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", True),
        ("io.cilium.k8s.policy.cluster", True),
        ("k8s-app", True),
        ("my.kubernetes.io-like", True),
        ("pod-template-hash", False),
        ("pod-template-generation", False),
        ("controller-revision-hash", False),
        ("controller-uid", False),
        ("statefulset.kubernetes.io/pod-name", False),
        ("apps.kubernetes.io/pod-index", False),
        ("batch.kubernetes.io/job-completion-index", False),
        ("kubernetes.io/arch", False),
        ("io.kubernetes.something", False),
        ("failure-domain.beta.kubernetes.io/zone", False),
        ("topology.kubernetes.io/zone", False),
        ("k8s.io/x", False),
        ("annotation.x", False),
    ],
)
def test_default_filter(key: str, kept: bool) -> None:
    """Labels that change per pod or belong to Kubernetes are left out, everything else counts."""
    assert DEFAULT_FILTER.keeps(key) is kept


def test_labels_of_a_pod() -> None:
    """Facts of the API objects are added, the template's hash is not."""
    assert identity_labels(
        {"app": "web", "pod-template-hash": "5d4"},
        "shop",
        namespace_labels={"team": "a"},
        service_account="runner",
    ) == (
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=a",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=runner",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


@pytest.mark.parametrize(
    "forged",
    [
        "io.kubernetes.pod.namespace",
        "io.cilium.k8s.namespace.labels.team",
        "io.cilium.k8s.policy.serviceaccount",
        "io.cilium.k8s.policy.cluster",
        "reserved:host",
    ],
)
def test_a_pod_cannot_state_facts(forged: str) -> None:
    """Labels that belong to API objects are taken from these alone (CVE-2023-39347)."""
    honest = identity_labels({"a": "b"}, "ns", namespace_labels={}, service_account="")
    assert identity_labels({"a": "b", forged: "evil"}, "ns", namespace_labels={}, service_account="") == honest


def test_two_pods_of_one_template_share_an_identity() -> None:
    """Hashes of different revisions do not split identities."""
    one = identity_labels({"a": "b", "pod-template-hash": "1"}, "n", namespace_labels={}, service_account="s")
    two = identity_labels({"pod-template-hash": "2", "a": "b"}, "n", namespace_labels={}, service_account="s")
    assert one == two


def test_a_value_may_hold_an_equals_sign() -> None:
    """Only the first one separates."""
    assert split_label("k8s:a=b=c") == ("k8s:a", "b=c")
