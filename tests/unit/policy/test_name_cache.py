"""The name cache, with times as numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.model.address import NO_ADDRESS, Address, parse_address
from mycel.policy.name_cache import NameCache

A, B, POD = parse_address("192.0.2.1"), parse_address("192.0.2.2"), parse_address("10.1.0.5")


def learn(cache: NameCache, name: str, *answers: tuple[Address, int], now_s: float = 0) -> set[Address]:
    return cache.learn(name, answers, source=POD, now_s=now_s)


def test_only_what_is_new_changes() -> None:
    cache = NameCache()
    assert learn(cache, "a.", (A, 10)) == {A}
    assert learn(cache, "a.", (A, 10), (B, 5)) == {B}
    assert learn(cache, "b.", (A, 10)) == {A}
    assert cache.names(A) == {"a.", "b."}


def test_over_then_put_off_then_gone() -> None:
    cache = NameCache()
    learn(cache, "a.", (A, 10))
    assert cache.sweep(9, set()) == set()
    assert cache.sweep(10, set()) == set()
    assert cache.names(A) == {"a."}
    assert cache.due(11) == {A}
    assert cache.sweep(11, {A}) == set()
    assert cache.sweep(12, None) == set()
    assert cache.sweep(13, {B}) == {A}
    assert (cache.names(A), len(cache)) == (frozenset(), 0)


def test_asked_again_it_is_not_put_off() -> None:
    cache = NameCache()
    learn(cache, "a.", (A, 0))
    cache.sweep(1, set())
    learn(cache, "a.", (A, 10), now_s=1)
    assert cache.due(2) == set()
    assert cache.sweep(2, set()) == set()


def test_a_shorter_ttl_takes_nothing_back() -> None:
    cache = NameCache()
    learn(cache, "a.", (A, 100))
    learn(cache, "a.", (A, 1))
    assert next(cache.entries()).until_s == 100


def test_ttl_bounds() -> None:
    cache = NameCache(min_ttl_s=60, max_ttl_s=3600)
    learn(cache, "a.", (A, 0), (B, 2**31 - 1))
    assert {each.address: each.until_s for each in cache.entries()} == {A: 60, B: 3600}


def test_a_name_has_a_thousand_addresses_and_keeps_the_longest_lived() -> None:
    """The others are put off: who was told one has time to use it."""
    cache = NameCache()
    many = [(Address(index.to_bytes(16, "big")), index) for index in range(1, 1501)]
    learn(cache, "a.", *many)
    assert (len(list(cache.entries())), cache.due(0)) == (1500, set())
    assert cache.sweep(0, set()) == set()
    assert cache.due(0) == {address for address, _ in many[:500]}
    assert cache.sweep(0, {many[0][0]}) == {address for address, _ in many[1:500]}
    assert {each.address for each in cache.entries()} == {many[0][0], *(address for address, _ in many[500:])}


def test_of_one_answer_the_first_stay() -> None:
    cache = NameCache(per_name=2)
    many = [Address(index.to_bytes(16, "big")) for index in range(4)]
    for now_s in (0, 1):
        learn(cache, "a.", *((address, 60) for address in many), now_s=now_s)
        assert {each.address for each in cache.entries() if each.until_s > now_s} == set(many[:2])


def test_what_is_beyond_is_bounded_at_once() -> None:
    cache = NameCache(per_name=2, put_off=3)
    many = [(Address(index.to_bytes(16, "big")), 60) for index in range(8)]
    changed = learn(cache, "a.", *many)
    assert len(list(cache.entries())) == 5
    assert {address for address, _ in many} == changed
    assert all(each in cache.addresses for each, _ in many[:2])


def test_what_is_put_off_is_bounded_too() -> None:
    cache = NameCache(put_off=3)
    for index in range(1, 6):
        learn(cache, f"n{index}.", (Address(index.to_bytes(16, "big")), 0))
    assert len(cache.sweep(1, None)) == 2
    assert len(cache) == 3


def test_names_are_bounded() -> None:
    cache = NameCache(names=2)
    for name in ("a.", "b.", "c."):
        learn(cache, name, (A, 10))
    assert cache.names(A) == {"b.", "c."}


_STEPS = st.lists(
    st.tuples(st.sampled_from(["a.", "b.", "c.", "d."]), st.integers(0, 5), st.integers(0, 5), st.booleans()),
    max_size=60,
)


@given(_STEPS)
@settings(max_examples=200)
def test_both_ways_of_looking_agree(steps: list[tuple[str, int, int, bool]]) -> None:
    cache = NameCache(per_name=3, put_off=4, names=3)
    for now, (name, number, ttl, sweeps) in enumerate(steps):
        address = Address(number.to_bytes(16, "big"))
        if sweeps:
            cache.sweep(now, {NO_ADDRESS})
        else:
            learn(cache, name, (address, ttl), now_s=now)
        entries = list(cache.entries())
        assert {each.address for each in entries} == set(cache.addresses)
        for each in entries:
            assert each.name in cache.names(each.address)
        assert sum(len(cache.names(address)) for address in cache.addresses) == len(entries)
        assert len(cache) <= 3
