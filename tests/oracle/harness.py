"""Compares the product with the model: differences, and the smallest policies that still show one."""

from __future__ import annotations

import copy
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import yaml

from tests.oracle.generate import Options, State, cases
from tests.oracle.model import SideVerdict, Verdict, verdict
from tests.oracle.parties import Cluster, Object

Evaluate = Callable[[list[Object], list[Object]], list[dict[str, Any]]]
SHRINK_STEPS = 400
FOUND = 3  # exit code
# Fields a policy cannot be without; the shrinker leaves them.
KEPT = {
    *(
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "endpointSelector",
        "podSelector",
        "key",
        "operator",
        "values",
    ),
    *("port", "type", "cidr", "serviceName", "k8sService", "selector", "matchName", "matchPattern"),
}


class Difference(NamedTuple):
    """One flow of one state about which model and product disagree."""

    state: State
    flow: Object
    expected: Verdict
    found: dict[str, Any]

    def __str__(self) -> str:
        """The state as YAML that `mycel policy evaluate -f` reads, the flow, and both answers."""
        documents = yaml.safe_dump_all([*self.state.objects, *self.state.policies], sort_keys=False)
        return (
            f"seed {self.state.seed}, flow {self.flow}\n"
            f"model:   {self.expected.verdict} egress={self.expected.egress} ingress={self.expected.ingress}\n"
            f"product: {self.found}\n--- as YAML\n{documents}"
        )


def product(objects: list[Object], flows: list[Object]) -> list[dict[str, Any]]:
    """The product's answers, through compiled rows."""
    from mycel.policy import evaluate_manifests

    return evaluate_manifests(objects, flows)


def agrees(expected: Verdict, found: dict[str, Any]) -> bool:
    """Whether an answer says the same as the model: verdicts, reasons, and only policies that had a part."""
    if expected.verdict != found["verdict"]:
        return False
    return all(_side(side, found[name]) for name, side in (("egress", expected.egress), ("ingress", expected.ingress)))


def _side(expected: SideVerdict, found: dict[str, Any]) -> bool:
    if (expected.verdict, expected.reason) != (found["verdict"], found["reason"]):
        return False
    if not expected.rules:
        return True
    policies = [rule.split(" ")[0].split("/", 1)[1] for rule in expected.rules]
    said = [str(rule) for rule in found["rules"]]
    return bool(said) and all(any(policy in rule for policy in policies) for rule in said)


def differences(state: State, expected: Sequence[Verdict], evaluate: Evaluate = product) -> Iterator[Difference]:
    """Every flow of a state whose answer is another one than the model's."""
    objects = [*state.objects, *state.policies]
    Random(state.seed).shuffle(objects)  # their order means nothing
    found = evaluate(objects, state.flows)
    assert [answer["id"] for answer in found] == [flow["id"] for flow in state.flows], "one answer a flow, in order"
    for flow, wanted, answer in zip(state.flows, expected, found, strict=True):
        if not agrees(wanted, answer):
            yield Difference(state, flow, wanted, answer)


def compare(seeds: range, options: Options = Options(), evaluate: Evaluate = product) -> tuple[int, list[Difference]]:  # noqa: B008
    """Verdicts asked for and the first difference of each state that has any."""
    asked, found = 0, list[Difference]()
    for state, expected in cases(seeds, options):
        asked += len(expected)
        found.extend(_first(differences(state, expected, evaluate)))
        if len(found) >= 5:
            break
    return asked, found


def _first(some: Iterator[Difference]) -> list[Difference]:
    found = next(some, None)
    return [] if found is None else [found]


# ---- shrinking


def shrink(difference: Difference, evaluate: Evaluate = product) -> Difference:
    """The same disagreement with as few policies, fields and objects as possible."""
    best = difference._replace(state=difference.state._replace(flows=[difference.flow]))
    for _ in range(SHRINK_STEPS):
        smaller = next((found for trial in _smaller(best.state) for found in _again(trial, evaluate)), None)
        if smaller is None:
            break
        best = smaller
    return best


def _again(state: State, evaluate: Evaluate) -> list[Difference]:
    """The difference of a smaller state if both sides still take it."""
    try:
        expected = [verdict(Cluster(state.objects), state.policies, flow) for flow in state.flows]
        return _first(differences(state, expected, evaluate))
    except Exception:  # the cut made a state that is none
        return []


def _smaller(state: State) -> Iterator[State]:
    for number in range(len(state.policies)):
        yield state._replace(policies=state.policies[:number] + state.policies[number + 1 :])
    for number in range(len(state.objects)):
        yield state._replace(objects=state.objects[:number] + state.objects[number + 1 :])
    for number, policy in enumerate(state.policies):
        for place in _places(policy):
            cut = copy.deepcopy(policy)
            *way, last = place
            inner: Any = cut
            for step in way:
                inner = inner[step]
            del inner[last]
            yield state._replace(policies=[*state.policies[:number], cut, *state.policies[number + 1 :]])


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything that may be cut out, outermost first. An emptied list means something else: it stays."""
    inner: list[tuple[Any, Any]] = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, _ in inner:
        if key not in KEPT and not (isinstance(value, list) and len(value) == 1):
            yield (*way, key)
    for key, below in inner:
        if key != "metadata":
            yield from _places(below, (*way, key))


def main(arguments: list[str]) -> None:
    """`python -m tests.oracle.harness FIRST COUNT [no-cidr-modes]`: compare, and print the first differences shrunk.

    With `find`, stop at the first one: exit code FOUND, its kind printed.
    """
    first, count = int(arguments[0]), int(arguments[1])
    if "find" in arguments:
        for state, expected in cases(range(first, first + count), Options(flows=100)):
            for found in _first(differences(state, expected)):
                print(f"seed {state.seed}: {_kind(found)}")
                sys.exit(FOUND)
        return
    started = time.monotonic()
    options = Options(cidr_modes="no-cidr-modes" not in arguments)
    kinds: Counter[str] = Counter()
    asked, shown = 0, 0
    for state, expected in cases(range(first, first + count), options):
        asked += len(expected)
        for number, found in enumerate(differences(state, expected)):
            kinds[_kind(found)] += 1
            if number == 0 and shown < 3:
                shown += 1
                print(shrink(found))
    print(f"{asked} verdicts in {time.monotonic() - started:.1f} s, differences: {dict(kinds)}")


def _kind(found: Difference) -> str:
    def said(egress: Any, ingress: Any) -> str:
        return f"{egress[0]}/{egress[1]}+{ingress[0]}/{ingress[1]}"

    sides = [(found.found[side]["verdict"], found.found[side]["reason"]) for side in ("egress", "ingress")]
    return f"{said(found.expected.egress, found.expected.ingress)} -> {said(*sides)}"


if __name__ == "__main__":
    main(sys.argv[1:])
