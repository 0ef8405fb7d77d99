"""The query parameters that every verb understands, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from mycel.cluster.apiserver.authn import User
from mycel.cluster.apiserver.errors import bad_request


class FieldValidation(Enum):
    """What happens to fields the kind does not have."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write is to be done, and by whom. `warnings` collects what the answer's headers say."""

    user: User
    manager: str
    dry_run: bool = False
    validation: FieldValidation = FieldValidation.WARN
    force: bool = False
    warnings: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list or watch asks for."""

    label_selector: str
    field_selector: str
    limit: int
    continue_token: str
    resource_version: str
    timeout_s: float | None
    bookmarks: bool
    initial_events: bool


def write_options(query: Mapping[str, str], user: User, user_agent: str) -> WriteOptions:
    """From a request's query; ApiFault 400 for values Kubernetes does not have."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f'Invalid value: "{dry_run[:40]}": dryRun must be All')
    try:
        validation = FieldValidation(query.get("fieldValidation") or "Warn")
    except ValueError as error:
        raise bad_request("fieldValidation must be Ignore, Warn or Strict") from error
    manager = query.get("fieldManager") or user_agent.partition("/")[0] or "unknown"
    if len(manager) > 128:
        raise bad_request("fieldManager is longer than 128 bytes")
    return WriteOptions(
        user=user,
        manager=manager,
        dry_run=dry_run == "All",
        validation=validation,
        force=boolean(query, "force"),
    )


def list_options(query: Mapping[str, str]) -> ListOptions:
    """From a request's query; ApiFault 400 for malformed numbers."""
    timeout = number(query, "timeoutSeconds")
    version = query.get("resourceVersion", "")
    if version and (not version.isascii() or not version.isdigit() or len(version) > 18):
        raise bad_request(f"Invalid value: {version[:40]!r}: resourceVersion must be a number")
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=number(query, "limit") or 0,
        continue_token=query.get("continue", ""),
        resource_version=version,
        timeout_s=float(timeout) if timeout else None,
        bookmarks=boolean(query, "allowWatchBookmarks"),
        initial_events=boolean(query, "sendInitialEvents"),
    )


def boolean(query: Mapping[str, str], name: str) -> bool:
    """`true`, `1` and an empty value mean yes."""
    if name not in query:
        return False
    return query[name].lower() in ("", "true", "1")


def number(query: Mapping[str, str], name: str) -> int | None:
    """A number that is not negative, None when absent."""
    text = query.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise bad_request(f"Invalid value: {text[:40]!r}: {name} must be a number that is not negative")
    return int(text)
