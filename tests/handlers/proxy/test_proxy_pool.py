"""The pool: who is for clients when others are down, ejected, full, new or gone. The time is the test's."""

import logging
import random
from collections.abc import Collection
from typing import Any

import pytest
from gaiod.handlers.proxy import Proxy
from gaiod.handlers.proxy.names import Answer
from gaiod.handlers.proxy.options import PassiveOptions, ProxyOptions
from gaiod.handlers.proxy.pool import Pool
from gaiod.handlers.proxy.servers import Endpoint, Server
from worker.support.proxying import Counted

from gaiod.plugins import build_options

PASSIVE = PassiveOptions(failures=2, eject=10.0, eject_max=60.0, slow_start=0.0)


def pool_of(*servers: Any, passive: PassiveOptions = PASSIVE) -> Pool:
    """Return a pool of servers; their addresses are texts, or mappings as the configuration has them."""
    options: ProxyOptions = build_options(Proxy, {"servers": list(servers)})
    object.__setattr__(options, "passive", passive)
    made = [Server(entry, Counted()) for entry in options.entries]
    return Pool("db", options, made, random.Random(1))


def endpoint(pool: Pool, number: int) -> Endpoint:
    """Return the first endpoint of the n-th server."""
    found: Endpoint = pool.servers[number].endpoints[0]
    return found


def chosen(pool: Pool, now_s: float = 0.0, tried: Collection[Endpoint] = ()) -> set[str]:
    """Return whom 50 clients are sent to."""
    found = [pool.choose(now_s, 0, tried) for _ in range(50)]
    return {str(each) for each in found if each is not None}


def fail(pool: Pool, number: int, now_s: float, times: int = 2) -> None:
    """Let connects to the n-th server fail."""
    for _ in range(times):
        pool.failed(endpoint(pool, number), now_s, "Connection refused")


# -- who is chosen -------------------------------------------------------------------------------------


def test_all_get_clients() -> None:
    assert chosen(pool_of("a:1", "10.0.0.1:1", "10.0.0.2:1")) == {"10.0.0.1:1", "10.0.0.2:1"}


def test_backups_get_none_while_a_server_is_usable() -> None:
    pool = pool_of("10.0.0.1:1", {"address": "10.0.0.2:1", "backup": True})
    assert chosen(pool) == {"10.0.0.1:1"}
    pool.set_down(endpoint(pool, 0), "connect: refused", 0.0)
    assert chosen(pool) == {"10.0.0.2:1"}
    pool.set_down(endpoint(pool, 0), None, 0.0)
    assert chosen(pool) == {"10.0.0.1:1"}


def test_who_was_tried_is_chosen_only_where_there_is_nobody_else() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    first, second = endpoint(pool, 0), endpoint(pool, 1)
    assert chosen(pool, tried=(first,)) == {"10.0.0.2:1"}
    assert chosen(pool, tried=(first, second)) == {"10.0.0.1:1", "10.0.0.2:1"}


def test_backup_is_tried_when_all_servers_were() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1", {"address": "10.0.0.3:1", "backup": True})
    first, second, backup = (endpoint(pool, number) for number in range(3))
    assert chosen(pool, tried=(first,)) == {"10.0.0.2:1"}
    assert chosen(pool, tried=(first, second)) == {"10.0.0.3:1"}
    assert chosen(pool, tried=(first, second, backup)) == {"10.0.0.1:1", "10.0.0.2:1"}, "then they are tried again"


def test_backup_gets_clients_when_all_servers_are_full_and_nobody_does_when_it_is_full_too() -> None:
    pool = pool_of(
        {"address": "10.0.0.1:1", "connections_max": 2},
        {"address": "10.0.0.2:1", "backup": True, "connections_max": 1},
    )
    first, backup = endpoint(pool, 0), endpoint(pool, 1)
    pool.take(first)
    assert chosen(pool) == {"10.0.0.1:1"}
    pool.take(first)
    assert chosen(pool) == {"10.0.0.2:1"}
    pool.take(backup)
    assert pool.choose(0.0, 0) is None
    assert pool.is_waiting_worthwhile
    assert pool.give_back(first), "there is room where there was none"
    assert not pool.give_back(first)
    assert chosen(pool) == {"10.0.0.1:1"}


def test_nobody_is_chosen_and_waiting_is_in_vain_when_all_are_down() -> None:
    pool = pool_of("10.0.0.1:1")
    pool.set_down(endpoint(pool, 0), "connect: refused", 0.0)
    assert pool.choose(0.0, 0) is None
    assert not pool.is_waiting_worthwhile


def test_workers_do_not_all_begin_with_the_same_server() -> None:
    def first_choice(seed: int) -> str:
        servers = [Server(entry, Counted()) for entry in ProxyOptions(["10.0.0.1:1", "10.0.0.2:1"]).entries]
        return str(Pool("db", ProxyOptions(["10.0.0.1:1"]), servers, random.Random(seed)).choose(0.0, 0))

    assert {first_choice(seed) for seed in range(20)} == {"10.0.0.1:1", "10.0.0.2:1"}


# -- ejection ------------------------------------------------------------------------------------------


def test_server_is_ejected_after_failures_in_a_row_and_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    pool.failed(endpoint(pool, 0), 0.0, "Connection refused")
    assert chosen(pool) == {"10.0.0.1:1", "10.0.0.2:1"}
    pool.succeeded(endpoint(pool, 0), 0.0, 0.0)
    pool.failed(endpoint(pool, 0), 0.0, "Connection refused")
    assert chosen(pool) == {"10.0.0.1:1", "10.0.0.2:1"}, "one success, and it begins anew"
    pool.failed(endpoint(pool, 0), 0.0, "Connection refused")
    assert chosen(pool, 9.9) == {"10.0.0.2:1"}
    assert not pool.servers[0].stats.up
    assert chosen(pool, 10.0) == {"10.0.0.1:1", "10.0.0.2:1"}
    assert pool.servers[0].stats.up
    assert caplog.messages == [
        "listener db: server 10.0.0.1:1 is ejected for 10 s: it could not be connected to; Connection refused",
        "listener db: server 10.0.0.1:1 returns",
    ]


def test_ejection_takes_twice_as_long_each_time_up_to_its_maximum() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    now_s = 0.0
    for duration_s in (10.0, 20.0, 40.0, 60.0, 60.0):
        fail(pool, 0, now_s)
        assert chosen(pool, now_s + duration_s - 0.1) == {"10.0.0.2:1"}
        now_s += duration_s
        assert len(chosen(pool, now_s)) == 2
    pool.succeeded(endpoint(pool, 0), now_s, now_s)
    fail(pool, 0, now_s)
    assert len(chosen(pool, now_s + 10.0)) == 2, "a success, and it begins anew"


def test_failure_of_a_connect_that_began_before_the_ejection_does_not_make_it_longer() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    fail(pool, 0, 0.0, times=7)
    assert len(chosen(pool, 10.0)) == 2


def test_all_ejected_are_used_all_the_same_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    fail(pool, 0, 0.0)
    fail(pool, 1, 0.0)
    assert chosen(pool, 1.0) == {"10.0.0.1:1", "10.0.0.2:1"}
    fail(pool, 0, 1.0)
    assert caplog.text.count("every server is ejected") == 1
    assert not pool.servers[0].stats.up


def test_backup_comes_before_servers_that_are_ejected() -> None:
    pool = pool_of("10.0.0.1:1", {"address": "10.0.0.2:1", "backup": True})
    fail(pool, 0, 0.0)
    assert chosen(pool, 1.0) == {"10.0.0.2:1"}
    fail(pool, 1, 1.0)
    assert chosen(pool, 1.0) == {"10.0.0.1:1"}, "all are ejected: servers first again"


def test_server_that_returns_gets_its_share_slowly() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1", passive=PassiveOptions(failures=1, eject=10.0, slow_start=20.0))
    fail(pool, 0, 0.0, times=1)
    weights = []
    for now_s in (10.0, 11.0, 15.0, 20.0, 29.0, 30.0):
        pool.refresh_if_due(now_s)
        weights.append(endpoint(pool, 0).weight)
    assert weights == [0.1, 0.1, 0.25, 0.5, 0.95, 1.0]
    assert endpoint(pool, 1).weight == 1.0


def test_server_that_fails_again_before_it_has_its_share_is_ejected_for_longer() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1", passive=PassiveOptions(failures=1, eject=10.0, slow_start=20.0))
    fail(pool, 0, 0.0, times=1)
    pool.refresh_if_due(10.0)
    pool.succeeded(endpoint(pool, 0), 10.0, 10.0)
    fail(pool, 0, 15.0, times=1)
    assert chosen(pool, 34.9) == {"10.0.0.2:1"}
    assert chosen(pool, 35.0) == {"10.0.0.1:1", "10.0.0.2:1"}


def test_server_that_comes_up_begins_slowly_too() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1", passive=PassiveOptions(slow_start=20.0))
    pool.set_down(endpoint(pool, 0), "connect: refused", 0.0)
    pool.set_down(endpoint(pool, 0), None, 5.0)
    assert endpoint(pool, 0).weight == 0.1


# -- ejection and checks -------------------------------------------------------------------------------


def test_check_that_passes_ends_an_ejection_and_log_and_metric_agree(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    fail(pool, 0, 5.0)
    assert not pool.checked(endpoint(pool, 0), True, 4.9, 5.1), "it began before the ejection"
    assert not pool.servers[0].stats.up
    assert pool.checked(endpoint(pool, 0), True, 5.5, 6.0)
    assert pool.servers[0].stats.up
    assert chosen(pool, 6.0) == {"10.0.0.1:1", "10.0.0.2:1"}
    assert caplog.messages[1:] == ["listener db: server 10.0.0.1:1 is up: a check passed, which ends its ejection"]


def test_server_that_its_check_brings_back_begins_slowly() -> None:
    pool = pool_of("10.0.0.1:1", passive=PassiveOptions(failures=1, slow_start=20.0))
    fail(pool, 0, 0.0, times=1)
    pool.checked(endpoint(pool, 0), True, 1.0, 1.0)
    assert endpoint(pool, 0).weight == 0.1


def test_server_that_passes_checks_and_refuses_clients_stays_ejected_for_longer_and_longer() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    first = endpoint(pool, 0)
    fail(pool, 0, 0.0)
    assert pool.checked(first, True, 1.0, 1.0), "checks are believed once"
    fail(pool, 0, 2.0)
    for now_s in (3.0, 10.0, 21.9):
        assert not pool.checked(first, True, now_s, now_s)
        assert chosen(pool, now_s) == {"10.0.0.2:1"}
    assert len(chosen(pool, 22.0)) == 2, "20 s, then 40 s"
    fail(pool, 0, 22.0)
    assert not pool.checked(first, True, 30.0, 30.0)
    assert chosen(pool, 61.9) == {"10.0.0.2:1"}


@pytest.mark.parametrize("what", ["a client was connected", "a check failed"])
def test_checks_are_believed_again_once_they_were_right(what: str) -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    first = endpoint(pool, 0)
    fail(pool, 0, 0.0)
    assert pool.checked(first, True, 1.0, 1.0)
    if what == "a client was connected":
        pool.succeeded(first, 1.5, 1.5)
    fail(pool, 0, 2.0)
    if what == "a check failed":
        assert not pool.checked(first, False, 2.5, 2.5)
    assert pool.checked(first, True, 3.0, 3.0)
    assert len(chosen(pool, 3.0)) == 2


def test_check_that_passes_does_not_bring_back_a_server_that_is_down_before_enough_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    first = endpoint(pool, 0)
    fail(pool, 0, 0.0)
    pool.set_down(first, "connect: Connection refused, after 1 ms", 1.0)
    assert not pool.checked(first, True, 2.0, 2.0)
    assert chosen(pool, 2.0) == {"10.0.0.2:1"}
    pool.set_down(first, None, 3.0)
    assert len(chosen(pool, 3.0)) == 2
    assert caplog.messages[1:] == [
        "listener db: server 10.0.0.1:1 is down: its checks fail; connect: Connection refused, after 1 ms",
        "listener db: server 10.0.0.1:1 is up: its checks pass",
    ]


def test_what_is_wrong_with_servers_is_told() -> None:
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
    fail(pool, 0, 0.0)
    pool.set_down(endpoint(pool, 1), "connect: no answer in time, after 2000 ms", 0.0)
    assert pool.troubles() == [
        "Server 10.0.0.1:1 is ejected: it could not be connected to; Connection refused.",
        "Server 10.0.0.2:1 is down: its checks fail; connect: no answer in time, after 2000 ms.",
    ]
    pool.checked(endpoint(pool, 0), True, 1.0, 1.0)
    assert len(pool.troubles()) == 1


def test_ejection_of_a_server_that_is_down_ends_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("10.0.0.1:1", "10.0.0.2:1")
    fail(pool, 0, 0.0)
    pool.set_down(endpoint(pool, 0), "connect: refused", 1.0)
    assert chosen(pool, 11.0) == {"10.0.0.2:1"}
    assert "returns" not in caplog.text


def test_client_that_can_be_connected_ends_an_ejection_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("10.0.0.1:1")
    fail(pool, 0, 5.0)
    pool.succeeded(endpoint(pool, 0), 4.0, 6.0)
    assert not pool.servers[0].stats.up, "that connect began before the ejection"
    pool.succeeded(endpoint(pool, 0), 6.0, 6.1)
    assert pool.servers[0].stats.up
    assert caplog.messages[-1].endswith("is up: a client was connected, which ends its ejection")


# -- names ---------------------------------------------------------------------------------------------


def test_clients_wait_for_a_name_that_is_not_known_yet() -> None:
    pool = pool_of("db:5432")
    assert pool.choose(0.0, 0) is None
    assert pool.is_waiting_worthwhile
    assert not pool.servers[0].stats.up


def test_each_address_of_a_name_gets_clients() -> None:
    pool = pool_of("db:5432")
    new = pool.resolved(pool.servers[0], Answer("db", ("10.0.0.1", "10.0.0.2")), 0.0)
    assert [each.target for each in new] == [("10.0.0.1", 5432), ("10.0.0.2", 5432)]
    assert chosen(pool) == {"db:5432 (10.0.0.1)", "db:5432 (10.0.0.2)"}
    assert pool.servers[0].stats.up


def test_address_that_vanishes_gets_no_new_clients_and_what_stays_keeps_its_state() -> None:
    pool = pool_of("db:5432")
    server = pool.servers[0]
    old, kept = pool.resolved(server, Answer("db", ("10.0.0.1", "10.0.0.2")), 0.0)
    pool.take(old)
    pool.take(kept)
    (new,) = pool.resolved(server, Answer("db", ("10.0.0.2", "10.0.0.3")), 0.0)
    assert chosen(pool) == {"db:5432 (10.0.0.2)", "db:5432 (10.0.0.3)"}
    assert (old.is_gone, kept.is_gone, new.is_gone) == (True, False, False)
    assert (server.active, kept.active) == (2, 1)
    pool.give_back(old)
    assert server.active == 1


def test_last_good_answer_is_kept_when_looking_up_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    pool = pool_of("db:5432")
    server = pool.servers[0]
    pool.resolved(server, Answer("db", (), "no such name"), 0.0)
    pool.resolved(server, Answer("db", ("10.0.0.1",)), 0.0)
    for _ in range(3):
        assert pool.resolved(server, Answer("db", (), "timed out"), 0.0) == []
    assert chosen(pool) == {"db:5432 (10.0.0.1)"}
    pool.resolved(server, Answer("db", ("10.0.0.1",)), 0.0)
    assert caplog.messages == [
        "listener db: server db:5432: looking it up failed: no such name; clients wait",
        "listener db: server db:5432: it can be looked up again",
        "listener db: server db:5432: it is now 10.0.0.1",
        "listener db: server db:5432: looking it up failed: timed out; it is still taken to be 10.0.0.1",
        "listener db: server db:5432: it can be looked up again",
    ]


def test_server_is_up_while_one_of_its_addresses_is() -> None:
    pool = pool_of("db:5432")
    first, second = pool.resolved(pool.servers[0], Answer("db", ("10.0.0.1", "10.0.0.2")), 0.0)
    pool.set_down(first, "connect: refused", 0.0)
    assert pool.servers[0].stats.up
    pool.set_down(second, "connect: refused", 0.0)
    assert not pool.servers[0].stats.up


def test_connections_max_is_that_of_the_whole_server() -> None:
    pool = pool_of({"address": "db:5432", "connections_max": 2})
    first, second = pool.resolved(pool.servers[0], Answer("db", ("10.0.0.1", "10.0.0.2")), 0.0)
    pool.take(first)
    pool.take(second)
    assert pool.choose(0.0, 0) is None
