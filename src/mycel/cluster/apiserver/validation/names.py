"""Names and labels: RFC 1123 and 1035 labels, subdomains, qualified names, label values."""

import re
from collections.abc import Mapping
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem, invalid, required, too_long
from mycel.cluster.apiserver.schema.types import join

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")
_ENV = re.compile(r"[ -<>-~]+\Z")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_MAX_ANNOTATIONS = 256 * 1024

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)


def dns_label(value: str, field: str) -> list[Problem]:
    """RFC 1123 label: lower-case letters, digits and dashes, at most 63."""
    if len(value) > 63:
        return [invalid(field, value, "must be no more than 63 characters")]
    return [] if _LABEL.match(value) else [invalid(field, value, _LABEL_RULE)]


def dns_label_1035(value: str, field: str) -> list[Problem]:
    """RFC 1035 label, which starts with a letter: names of Services."""
    if len(value) > 63:
        return [invalid(field, value, "must be no more than 63 characters")]
    if _LABEL_1035.match(value):
        return []
    return [
        invalid(
            field,
            value,
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character",
        )
    ]


def dns_subdomain(value: str, field: str) -> list[Problem]:
    """RFC 1123 subdomain, at most 253: what most objects are called."""
    if len(value) > 253:
        return [invalid(field, value, "must be no more than 253 characters")]
    return [] if _SUBDOMAIN.match(value) else [invalid(field, value, _SUBDOMAIN_RULE)]


def path_segment(value: str, field: str) -> list[Problem]:
    """What fits into a URL's path: names of RBAC objects."""
    if value in (".", "..") or "/" in value or "%" in value or len(value) > 253:
        return [invalid(field, value, "may not be '.' or '..' or contain '/' or '%'")]
    return []


def qualified_name(value: str, field: str) -> list[Problem]:
    """`name` or `prefix/name`: keys of labels and annotations, condition types."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or "/" in prefix or not _SUBDOMAIN.match(prefix) or len(prefix) > 253):
        return [invalid(field, value, "prefix part " + _SUBDOMAIN_RULE)]
    if not name or len(name) > 63 or not _QUALIFIED.match(name):
        return [
            invalid(
                field,
                value,
                "name part must consist of alphanumeric characters, '-', '_' or '.', start and end with an "
                "alphanumeric character and be no more than 63 characters",
            )
        ]
    return []


def label_value(value: str, field: str) -> list[Problem]:
    """The value of a label."""
    if len(value) > 63:
        return [invalid(field, value, "must be no more than 63 characters")]
    if not _VALUE.match(value):
        return [
            invalid(
                field,
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
                "and must start and end with an alphanumeric character",
            )
        ]
    return []


def labels(values: Mapping[str, Any] | None, field: str) -> list[Problem]:
    """A map of labels."""
    problems: list[Problem] = []
    for key, value in (values or {}).items():
        problems += qualified_name(key, field)
        problems += label_value(value, f"{field}")
    return problems


def annotations(values: Mapping[str, Any] | None, field: str) -> list[Problem]:
    """A map of annotations: keys are qualified names, 256 KiB together."""
    problems: list[Problem] = []
    size = 0
    for key, value in (values or {}).items():
        problems += qualified_name(key.lower(), field)
        size += len(key) + len(value)
    if size > _MAX_ANNOTATIONS:
        problems.append(too_long(field, _MAX_ANNOTATIONS))
    return problems


def label_selector(selector: Mapping[str, Any] | None, field: str) -> list[Problem]:
    """A metav1.LabelSelector."""
    if selector is None:
        return []
    problems = labels(selector.get("matchLabels"), join(field, "matchLabels"))
    expressions: list[dict[str, Any]] = selector.get("matchExpressions") or []
    for index, expression in enumerate(expressions):
        here = f"{field}.matchExpressions[{index}]"
        values = expression.get("values") or []
        match expression.get("operator"):
            case "In" | "NotIn":
                if not values:
                    problems.append(
                        required(join(here, "values"), "must be specified when `operator` is 'In' or 'NotIn'")
                    )
            case "Exists" | "DoesNotExist":
                if values:
                    problems.append(
                        invalid(join(here, "values"), values, "may not be specified when `operator` is 'Exists'")
                    )
            case other:
                problems.append(invalid(join(here, "operator"), other, "not a valid selector operator"))
        problems += qualified_name(expression.get("key") or "", join(here, "key"))
        for value in values:
            problems += label_value(value, join(here, "values"))
    return problems


def env_name(value: str, field: str) -> list[Problem]:
    """Name of an environment variable: printable ASCII without '='."""
    return [] if _ENV.match(value) else [invalid(field, value, "must be printable ASCII characters other than '='")]


def config_key(value: str, field: str) -> list[Problem]:
    """Key of a ConfigMap or Secret."""
    if not _CONFIG_KEY.match(value) or len(value) > 253 or value in (".", ".."):
        detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        return [invalid(field, value, detail)]
    return []


def port_name(value: str, field: str) -> list[Problem]:
    """IANA service name: at most 15, at least one letter, no double dashes."""
    if len(value) > 15:
        return [invalid(field, value, "must be no more than 15 characters")]
    if not _PORT_NAME.match(value) or "--" in value or not re.search("[a-z]", value):
        detail = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), with at least one letter"
        return [invalid(field, value, detail)]
    return []


def port_number(value: int, field: str) -> list[Problem]:
    """1 to 65535."""
    return [] if 1 <= value <= 65535 else [invalid(field, value, "must be between 1 and 65535, inclusive")]


def non_negative(value: int | None, field: str) -> list[Problem]:
    """None, or zero and more."""
    if value is not None and value < 0:
        return [invalid(field, value, "must be greater than or equal to 0")]
    return []
