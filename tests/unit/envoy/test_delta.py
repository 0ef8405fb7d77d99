"""The delta-ADS state machine against the clauses of the xDS protocol, and against a client that answers at random."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.envoy.delta import Outcome, Request, Response, Stream
from mycel.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, Snapshot, TypeUrl, resource


def body(text: str) -> Resource:
    return resource(text.encode())


def only(stream: Stream) -> Response:
    responses = stream.due()
    assert len(responses) == 1, responses
    return responses[0]


def ack(stream: Stream, response: Response) -> list[Outcome]:
    return stream.receive(Request(response.type_url, nonce=response.nonce))


def nack(stream: Stream, response: Response, words: str) -> list[Outcome]:
    return stream.receive(Request(response.type_url, nonce=response.nonce, error=words))


def opened(snapshot: Snapshot, *urls: TypeUrl) -> Stream:
    """A stream on which `urls` were subscribed and everything was accepted."""
    stream = Stream(snapshot)
    for url in urls:
        names = () if url in (CLUSTER, LISTENER) else tuple(snapshot.get(url, {}))
        stream.receive(Request(url, subscribe=names))
    while responses := stream.due():
        for response in responses:
            ack(stream, response)
    assert stream.settled
    return stream


def test_equal_content_has_an_equal_version():
    assert body("a").version == body("a").version != body("b").version


def test_nothing_is_sent_unasked():
    assert Stream({CLUSTER: {"a": body("1")}}).due() == []


def test_a_first_request_without_names_asks_for_all_clusters():
    stream = Stream({CLUSTER: {"a": body("1"), "b": body("2")}})
    stream.receive(Request(CLUSTER))
    assert only(stream).resources.keys() == {"a", "b"}
    assert stream.due() == [], "one response of a type at a time"


def test_a_first_request_without_names_asks_for_no_routes():
    stream = Stream({ROUTES: {"a": body("1")}})
    stream.receive(Request(ROUTES))
    assert stream.due() == []


def test_the_wildcard_by_name_and_its_end():
    stream = Stream({ROUTES: {"a": body("1")}})
    stream.receive(Request(ROUTES, subscribe=("*",)))
    ack(stream, only(stream))
    stream.receive(Request(ROUTES, unsubscribe=("*",)))
    stream.offer({ROUTES: {"a": body("2")}})
    assert stream.due() == []


def test_what_a_client_declares_is_not_sent_again():
    kept, changed = body("1"), body("2")
    stream = Stream({CLUSTER: {"kept": kept, "changed": changed}})
    stream.receive(
        Request(
            CLUSTER,
            initial_versions={"kept": kept.version, "changed": body("old").version, "gone": body("3").version},
        )
    )
    response = only(stream)
    assert (response.resources.keys(), response.removed) == ({"changed"}, ())
    ack(stream, response)
    assert only(stream).removed == ("gone",), "updates first, removals when they were answered"


def test_what_is_subscribed_again_is_sent_again():
    stream = opened({ENDPOINTS: {"a": body("1")}}, ENDPOINTS)
    stream.receive(Request(ENDPOINTS, subscribe=("a",)))
    assert only(stream).resources.keys() == {"a"}


def test_absence_is_an_answer():
    stream = Stream({})
    stream.receive(Request(ENDPOINTS, subscribe=("a",)))
    response = only(stream)
    assert (dict(response.resources), response.removed) == ({}, ("a",))
    ack(stream, response)
    assert stream.settled
    stream.offer({ENDPOINTS: {"a": body("1")}})
    assert only(stream).resources.keys() == {"a"}


def test_a_name_given_up_under_a_wildcard_is_answered():
    stream = Stream({CLUSTER: {"a": body("1")}})
    stream.receive(Request(CLUSTER, subscribe=("*", "a")))
    ack(stream, only(stream))
    stream.receive(Request(CLUSTER, unsubscribe=("a",)))
    assert only(stream).resources.keys() == {"a"}


def test_a_foreign_nonce_is_no_answer_but_its_subscriptions_count():
    stream = Stream({ENDPOINTS: {"a": body("1"), "b": body("2")}})
    stream.receive(Request(ENDPOINTS, subscribe=("a",)))
    only(stream)
    assert stream.receive(Request(ENDPOINTS, subscribe=("b",), nonce="stale", error="no")) == []
    assert stream.unanswered == (ENDPOINTS,)


def test_an_answer_may_subscribe_too():
    stream = Stream({ENDPOINTS: {"a": body("1"), "b": body("2")}})
    stream.receive(Request(ENDPOINTS, subscribe=("a",)))
    response = only(stream)
    outcomes = stream.receive(Request(ENDPOINTS, subscribe=("b",), nonce=response.nonce))
    assert outcomes == [Outcome(ENDPOINTS, "a", body("1").version, None)]
    assert only(stream).resources.keys() == {"b"}


def test_secrets_are_sent_one_by_one():
    """A refusal of two would have them sent again, and Envoy refuses a broken one only when it comes first."""
    stream = Stream({SECRET: {"a": body("1"), "b": body("2")}})
    stream.receive(Request(SECRET, subscribe=("a", "b")))
    first = only(stream)
    assert first.resources.keys() == {"a"}
    ack(stream, first)
    second = only(stream)
    assert second.resources.keys() == {"b"}
    assert nack(stream, second, "broken") == [Outcome(SECRET, "b", body("2").version, "broken")]
    assert stream.settled


def test_make_before_break():
    old = {CLUSTER: {"c1": body("c1")}, LISTENER: {"l": body("to c1")}}
    stream = opened(old, CLUSTER, LISTENER)
    stream.offer({CLUSTER: {"c2": body("c2")}, LISTENER: {"l": body("to c2")}})
    seen: list[tuple[TypeUrl, list[str], tuple[str, ...]]] = []
    while responses := stream.due():
        for response in responses:
            seen.append((response.type_url, list(response.resources), response.removed))
            ack(stream, response)
    assert seen == [(CLUSTER, ["c2"], ()), (LISTENER, ["l"], ()), (CLUSTER, [], ("c1",))]


def test_a_changed_cluster_has_its_endpoints_again():
    """It begins without any and asks for none that it has asked for: also on a stream that begins with what is held."""
    before: Snapshot = {CLUSTER: {"a": body("1"), "b": body("1")}, ENDPOINTS: {"a": body("ea"), "b": body("eb")}}
    after: Snapshot = before | {CLUSTER: {"a": body("2"), "b": body("1")}}
    stream = opened(before, CLUSTER, ENDPOINTS)
    stream.offer(after)
    assert [(each.type_url, [*each.resources]) for each in stream.due()] == [(CLUSTER, ["a"]), (ENDPOINTS, ["a"])]
    again = Stream(after)
    again.receive(Request(CLUSTER, initial_versions={name: each.version for name, each in before[CLUSTER].items()}))
    assert [*only(again).resources] == ["a"]
    held = {name: each.version for name, each in before[ENDPOINTS].items()}
    again.receive(Request(ENDPOINTS, subscribe=("a", "b"), initial_versions=held))
    assert [*only(again).resources] == ["a"]


def test_a_refusal_names_one_resource_and_hurts_no_other():
    stream = opened({LISTENER: {"a": body("a1"), "b": body("b1"), "c": body("c1")}}, LISTENER)
    stream.offer({LISTENER: {"a": body("a2"), "b": body("bad"), "c": body("c2")}})
    assert nack(stream, only(stream), "something is wrong") == []
    outcomes: list[Outcome] = []
    while responses := stream.due():
        for response in responses:
            assert len(response.resources) == 1
            bad = "b" in response.resources
            outcomes += nack(stream, response, "b is wrong") if bad else ack(stream, response)
    assert sorted(outcomes) == [
        Outcome(LISTENER, "a", body("a2").version, None),
        Outcome(LISTENER, "b", body("bad").version, "b is wrong"),
        Outcome(LISTENER, "c", body("c2").version, None),
    ]
    assert stream.settled, "what was refused is not sent again"
    stream.offer({LISTENER: {"a": body("a2"), "b": body("b1"), "c": body("c2")}})
    assert stream.due() == [], "the client kept the last good one"
    stream.offer({LISTENER: {"a": body("a2"), "b": body("b3"), "c": body("c2")}})
    assert only(stream).resources.keys() == {"b"}


def test_what_a_client_gave_up_is_not_removed_from_it():
    stream = opened({ENDPOINTS: {"a": body("1")}}, ENDPOINTS)
    stream.receive(Request(ENDPOINTS, unsubscribe=("a",)))
    stream.offer({})
    assert stream.due() == []


TYPES = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
BODIES = st.sampled_from(["1", "2", "bad"])
SNAPSHOTS = st.dictionaries(
    st.sampled_from(TYPES), st.dictionaries(st.sampled_from("abc"), BODIES.map(body), max_size=3), max_size=5
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SNAPSHOTS, min_size=1, max_size=4), st.lists(st.integers(0, 2), max_size=8))
def test_a_client_that_refuses_what_is_bad_ends_with_the_newest_good_ones(snapshots: list[Snapshot], early: list[int]):
    """`early`: how many answers the client gives before each next snapshot comes in."""
    stream = Stream()
    client: dict[TypeUrl, dict[str, Resource]] = {url: {} for url in TYPES}
    queue: list[Response] = []
    bad = body("bad")

    def answer() -> bool:
        queue.extend(stream.due())
        if not queue:
            return False
        response = queue.pop(0)
        refused = [name for name, sent in response.resources.items() if sent == bad]
        for name, sent in response.resources.items():
            if name not in refused:  # like Envoy: what is good of a refused response is taken
                client[response.type_url][name] = sent
        for name in response.removed:
            client[response.type_url].pop(name, None)
        if refused:
            nack(stream, response, f"{refused} are bad")
        else:
            ack(stream, response)
        return True

    for url in TYPES:
        stream.receive(Request(url, subscribe=("*",)))
    for index, snapshot in enumerate(snapshots):
        stream.offer(snapshot)
        for _ in range(early[index] if index < len(early) else 0):
            answer()
    for _ in range(200):
        if not answer():
            break
    assert stream.settled
    for url in TYPES:
        wanted = snapshots[-1].get(url, {})
        assert client[url].keys() <= wanted.keys(), "nothing stays that should be gone"
        for name, newest in wanted.items():
            assert newest == bad or client[url].get(name) == newest
