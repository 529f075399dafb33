"""The lint finds what it is there to find: each rule is broken here once."""

import copy
from collections.abc import Callable
from typing import Any

import generate
import pytest

from deploy.support.lint import complaints, metrics_of, panels_of, without_thresholds

SELECTED = '{job=~"$job", instance=~"$instance"}'
Break = Callable[[dict[str, Any]], object]


def _variable(dashboard: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in dashboard["templating"]["list"] if each["name"] == name)


def _without(name: str) -> Break:
    return lambda dashboard: dashboard["templating"]["list"].remove(_variable(dashboard, name))


def _of_variable(name: str, **what: Any) -> Break:
    return lambda dashboard: _variable(dashboard, name).update(what)


def _of_panel(**what: Any) -> Break:
    return lambda dashboard: panels_of(dashboard)[0].update(what)


def _of_target(**what: Any) -> Break:
    return lambda dashboard: panels_of(dashboard)[0]["targets"][0].update(what)


def _asking(expression: str) -> Break:
    return _of_target(expr=expression)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (_without("datasource"), "there is no variable datasource"),
        (_without("job"), "there is no variable job"),
        (_without("instance"), "there is no variable instance"),
        (_of_variable("datasource", query="loki"), "does not choose a Prometheus"),
        (_of_variable("job", multi=False), "the variable job has not multi"),
        (_of_variable("instance", allValue=".*"), "the variable instance has not allValue"),
        (_of_variable("instance", refresh=1), "the variable instance has not refresh"),
        (_of_variable("job", datasource={"uid": "mine"}), "the variable job is not from the datasource"),
        (_of_panel(title=""), "it has no title"),
        (_of_panel(description=""), "it has no description"),
        (_of_panel(targets=[]), "it has no targets"),
        (_of_panel(fieldConfig={"defaults": {}}), "it has no unit"),
        (_of_panel(fieldConfig={"defaults": {"unit": "second"}}), "it has no unit that Grafana knows: second"),
        (_of_panel(datasource={"uid": "mine"}), "it does not use the datasource"),
        (_of_target(datasource={"uid": "mine"}), "a target does not use the datasource"),
        (_of_target(legendFormat=""), "a target has no legend"),
        (_asking("sum(up)"), "a metric has no selector"),
        (_asking(f"sum(a{SELECTED} / on (job) b)"), "a metric has no selector"),
        (_asking('sum(up{instance=~"$instance"})'), "up is not filtered by job"),
        (_asking('sum(up{job=~"$job"})'), "up is not filtered by instance"),
        (_asking(f"sum(rate(a_total{SELECTED}[5m]))"), "the range is not $__rate_interval"),
        (_asking(f"sum(a_total{SELECTED})"), "a_total is shown without its rate"),
        (_asking(f"sum by (le) (rate(a_bucket{SELECTED}[$__rate_interval]))"), "not in a histogram_quantile"),
        (
            _asking(f"histogram_quantile(0.9, sum by (worker) (rate(a_bucket{SELECTED}[$__rate_interval])))"),
            "not in a histogram_quantile over sum by (le)",
        ),
    ],
)
def test_broken_rule_is_found(broken: Break, complaint: str) -> None:
    dashboard = copy.deepcopy(generate.dashboard())
    assert complaints(dashboard) == []
    broken(dashboard)
    (found,) = complaints(dashboard)
    assert complaint in found


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        (f"sum by (instance) (rate(a_total{SELECTED}[$__rate_interval]))", {"a_total"}),
        ("a / on (job) group_left () b > 0.8", {"a", "b"}),
        ('up{job="x"} == 0 or (ready == 0 unless draining == 1)', {"up", "ready", "draining"}),
        ("time() - max by (instance) (started)", {"started"}),
    ],
)
def test_names_of_an_expression(expression: str, names: set[str]) -> None:
    assert metrics_of(expression) == names


@pytest.mark.parametrize(
    ("expression", "compared"),
    [
        ("a > 0.8", "a"),
        ("up == 0 or (ready == 0 unless draining == 1)", "up or (ready and draining)"),
        ("a / b > 0.01 or c >= 1", "a / b or c"),
        ("rate(a[5m])\n> on (job) sum by (job) (rate(b[5m]))", "rate(a[5m]) + on (job) sum by (job) (rate(b[5m]))"),
    ],
)
def test_alert_without_its_thresholds(expression: str, compared: str) -> None:
    assert without_thresholds(expression) == compared
