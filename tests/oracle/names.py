"""What a matchName or matchPattern means, character by character. Nothing from `src`."""

from __future__ import annotations

_PART = set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def means(pattern: str, name: str) -> bool:
    """Whether a pattern as it stands in a manifest means a name as a query has it."""
    name = name.lower()
    name += "" if name.endswith(".") else "."
    if pattern and set(pattern) == {"*"}:
        return set(name) <= _PART | {"."}
    pattern = pattern.lower()
    pattern += "" if pattern.endswith(".") else "."
    if pattern.startswith("**."):
        labels = name[:-1].split(".")
        if not all(label and set(label) <= _PART for label in labels):
            return False
        # one or more labels, then the rest
        tails = [".".join(labels[cut:]) + "." if cut < len(labels) else "" for cut in range(1, len(labels) + 1)]
        return any(_fits(pattern[3:], tail) for tail in tails)
    return _fits(pattern, name)


def _fits(pattern: str, text: str) -> bool:
    """Every place in `text` that a beginning of `pattern` can reach."""
    places = {0}
    for char in pattern:
        if char == "*":
            reached = set(places)
            for place in places:
                while place < len(text) and text[place] in _PART:
                    place += 1
                    reached.add(place)
            places = reached
        else:
            places = {place + 1 for place in places if text[place : place + 1] == char}
    return len(text) in places
