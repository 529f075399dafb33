"""Values that do not go together. More of what is said: see refused/*-of-*.yaml, refused/group-*.yaml."""

import pytest

from gaiod.config.crosschecks import check_inlets, check_together
from gaiod.config.errors import Report
from gaiod.config.yaml import read_document


def problems(text: str) -> list[str]:
    report = Report("f")
    document = read_document(text, report)
    assert document
    read = len(report.errors)
    check_together(document, report)
    return [str(error) for error in report.errors[read:]]


def test_listeners_may_share_port_zero_and_differ_in_address_only() -> None:
    assert not problems(
        "listeners:\n"
        "  a: {bind: 127.0.0.1:0}\n"
        "  b: {bind: 127.0.0.1:0}\n"
        "  c: {bind: 127.0.0.1:7000}\n"
        "  d: {bind: 127.0.0.2:7000}\n"
        "  e: {bind: '[::1]:7000'}\n"
        "  f: {bind: 'systemd:7000'}\n"
        "  g: {bind: unix:/7000}\n"
    )


@pytest.mark.parametrize("bind", ["unix:/run/x:0", "systemd:0"])
def test_what_only_ends_like_port_zero_is_still_compared(bind: str) -> None:
    assert problems(f"listeners:\n  a: {{bind: '{bind}'}}\n  b: {{bind: '{bind}'}}\n") == [
        "f:3:13: listeners.b.bind: is the address of listeners.a.bind too; write another"
    ]


CLAIMS = {
    "metrics.listen": "metrics: {listen: 'unix:/run/x'}\n",
    "control.listen": "control: {listen: 'unix:/run/x'}\n",
    "log.file": "log: {file: /run/x}\n",
    "listeners.a.bind": "listeners: {a: {bind: 'unix:/run/x'}}\n",
}


@pytest.mark.parametrize("second", CLAIMS)
@pytest.mark.parametrize("first", CLAIMS)
def test_one_path_is_claimed_by_one_key_whichever_comes_first(first: str, second: str) -> None:
    if first == second:
        assert not problems(CLAIMS[first])
    else:
        noun = "path" if "log.file" in (first, second) else "address"
        (problem,) = problems(CLAIMS[first] + CLAIMS[second])
        assert problem.startswith("f:2:")
        assert problem.endswith(f": {second}: is the {noun} of {first} too; write another")


def test_address_claimed_three_times_names_the_first_each_time() -> None:
    text = "".join(CLAIMS[key] for key in ("control.listen", "metrics.listen", "listeners.a.bind"))
    assert [problem.split(": ", 1)[1] for problem in problems(text)] == [
        "metrics.listen: is the address of control.listen too; write another",
        "listeners.a.bind: is the address of control.listen too; write another",
    ]


def test_default_of_metrics_is_claimed_unless_it_is_set() -> None:
    listener = "listeners: {a: {bind: 127.0.0.1:9464}}\n"
    assert "(by default)" in problems(listener)[0]
    assert not problems("metrics: {listen: 127.0.0.1:9465}\n" + listener)


@pytest.mark.parametrize(
    "text",
    [
        "control: {listen: auto}",
        "control: {listen: false}",
        "control: {listen: 127.0.0.1:9464}",
        "log: {file: stderr}",
        "log: {file: run/x}",
        "log: {file: 5}\ncontrol: []\nmetrics: text\nlisteners: [a]",
        "listeners: {a: text, b: {bind: 5}, c: {bind: 5}}",
        "[]",
        "text",
    ],
)
def test_what_claims_nothing_or_is_the_schemas_to_report_is_left_alone(text: str) -> None:
    assert not problems(text)


def test_group_needs_a_user() -> None:
    complaint = "group: has no effect without user; add user: NAME, or remove it"
    assert problems("group: adm") == [f"f:1:1: {complaint}"]
    assert problems("user: false\ngroup: adm") == [f"f:2:1: {complaint}"]


@pytest.mark.parametrize(
    "text",
    [
        "user: a\ngroup: adm",
        "group: adm\nuser: a",
        "group: false",
        "user: false\ngroup: false",
        "group: 5",
        "user: 5\ngroup: adm",
        "user: no\ngroup: adm",
        "<<: {user: a}\ngroup: adm",
    ],
)
def test_group_is_fine_with_a_user_or_with_what_may_become_one(text: str) -> None:
    assert not problems(text)


def test_listener_that_would_believe_nobody_is_refused() -> None:
    assert problems("listeners:\n  a: {bind: 'unix:/run/x', proxy_protocol: {from: [10.0.0.0/8]}}") == [
        "f:2:51: listeners.a.proxy_protocol.from: has no unix:, and peers of a unix socket have no address; add unix:"
    ]
    assert problems("listeners:\n  a: {bind: '[::1]:1', proxy_protocol: {from: ['unix:']}}") == [
        "f:2:47: listeners.a.proxy_protocol.from: has unix: alone, and the listener has no unix socket; "
        "write the balancer's network"
    ]


@pytest.mark.parametrize(
    ("bind", "networks"),
    [
        ("unix:/run/x", "['unix:']"),
        ("unix:/run/x", "['unix:', 10.0.0.0/8]"),
        ("[::1]:1", "['unix:', 10.0.0.0/8]"),
        ("systemd:x", "['unix:']"),
        ("systemd:x", "[10.0.0.0/8]"),
        ("[::1]:1", "[]"),  # which is refused for another reason
    ],
)
def test_listener_that_believes_somebody_is_fine(bind: str, networks: str) -> None:
    assert not problems(f"listeners: {{a: {{bind: '{bind}', proxy_protocol: {{from: {networks}}}}}}}")


# -- where sources listen ----------------------------------------------------------------------------------


def inlet_problems(text: str, *inlets: tuple[str, str]) -> list[str]:
    report = Report("f")
    document = read_document(text, report)
    assert document
    check_inlets(document, report, {"a": inlets})
    return [str(error) for error in report.errors]


SOURCED = "listeners: {a: {bind: 'unix:/run/a', with: {x: ['127.0.0.1:7080', 'unix:/run/./x']}}}\n"


@pytest.mark.parametrize("first", [*CLAIMS][:3])
def test_source_has_no_place_of_anything_else(first: str) -> None:
    noun = "path" if first == "log.file" else "address"
    assert inlet_problems(CLAIMS[first] + SOURCED, ("one", "unix:/run/x"), ("two", "127.0.0.1:7080")) == [
        f"f:2:67: listeners.a.with.x[1]: source one has the {noun} of {first} too; write another"
    ]


def test_source_that_listens_at_the_metrics_default_is_told_of_it() -> None:
    assert inlet_problems(SOURCED, ("one", "127.0.0.1:9464")) == [
        "f:1:44: listeners.a.with: source one has the address of metrics.listen (by default) too; write another"
    ]


def test_address_that_two_sources_have_is_told_though_the_file_has_it_once_or_never() -> None:
    for address, at, first in (
        ("127.0.0.1:7080", "f:1:44: listeners.a.with", "listeners.a.with.x[0]"),
        ("127.0.0.1:7081", "f:1:44: listeners.a.with", "listeners.a.with"),
    ):
        assert inlet_problems(SOURCED, ("one", address), ("two", address)) == [
            f"{at}: source two has the address of {first} too; write another"
        ]
