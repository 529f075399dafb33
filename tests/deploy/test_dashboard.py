"""The dashboard shows everything that is exported, and keeps the rules for dashboards."""

from itertools import combinations
from pathlib import Path
from typing import Any

import generate
import pytest
import yaml
from panels import KNOWN, NOT_SHOWN, OTHERS, ROWS, Line

from deploy.support.lint import complaints, metrics_of, panels_of
from gaiod.observe.metrics import BY_NAME

PROVISIONING = Path(generate.__file__).parent / "provisioning"
LINES = [line for panels in ROWS.values() for panel in panels for line in panel.lines]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    """The dashboard."""
    return generate.dashboard()


def test_file_is_what_the_script_writes() -> None:
    assert generate.FILE.read_text() == generate.text(), "run deploy/grafana/generate.py"


def test_dashboard_keeps_the_rules(dashboard: dict[str, Any]) -> None:
    assert complaints(dashboard) == []


def test_every_metric_is_in_a_panel_or_there_is_a_reason() -> None:
    """deploy/grafana/panels.py is where a new metric belongs: into ROWS, or into NOT_SHOWN."""
    shown = {line.metric for line in LINES}
    exported = {*BY_NAME, *(metric.name for metric in OTHERS)}
    assert exported - shown == set(NOT_SHOWN)
    assert all(NOT_SHOWN.values())


def test_every_row_is_there(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert titles == [
        "Overview", "Listeners", "Back-pressure", "Workers and garbage collection", "Upstreams", "Push", "Process",
    ]  # fmt: skip


def test_limits_are_drawn_apart_from_what_they_bound(dashboard: dict[str, Any]) -> None:
    drawn = {
        next(target["expr"] for target in panel["targets"] if target["refId"] == override["matcher"]["options"])
        for panel in panels_of(dashboard)
        for override in panel["fieldConfig"]["overrides"]
    }
    limits = {line.metric for line in LINES if line.is_limit}
    assert limits == {name for expression in drawn for name in metrics_of(expression)}
    assert {name for name in BY_NAME if "_limit" in name} <= limits


def test_states_are_green_when_all_is_well(dashboard: dict[str, Any]) -> None:
    """0 is bad everywhere, but where a daemon stops."""
    for panel in panels_of(dashboard):
        if panel["fieldConfig"]["defaults"]["unit"] == "bool_yes_no":
            no, yes = (step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"])
            assert (yes == "green") != (no == "green"), panel["title"]
            assert (no == "green") == (panel["title"] == "Stops")


def test_no_panel_asks_for_what_nobody_exports(dashboard: dict[str, Any]) -> None:
    asked = {
        name for panel in panels_of(dashboard) for target in panel["targets"] for name in metrics_of(target["expr"])
    }
    assert {name.removesuffix("_bucket") for name in asked} <= set(KNOWN)


def test_metric_that_is_not_declared_is_refused() -> None:
    with pytest.raises(KeyError, match="gaiod_no_such_thing"):
        generate.expressions(Line("gaiod_no_such_thing"))


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.metric} by {line.by}")
def test_line_has_labels_of_its_metric_and_is_what_its_kind_can_be(line: Line) -> None:
    metric = KNOWN[line.metric]
    assert set(line.by.split()) <= {*metric.labels, "instance"}
    assert line.how != "increase" or metric.kind == "counter"
    assert metric.kind != "histogram" or line.how == "sum"


def test_panels_do_not_overlap_and_keep_inside(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= generate.WIDTH for place in places)
    for one, two in combinations(places, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_provisioned_datasource_is_a_prometheus_and_the_dashboard_is_read_from_files() -> None:
    (datasource,) = yaml.safe_load((PROVISIONING / "datasources" / "gaiod.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "gaiod.yaml").read_text())["providers"]
    prometheus = yaml.safe_load((PROVISIONING.parent.parent / "prometheus" / "prometheus.yml").read_text())
    assert datasource["type"] == "prometheus"
    assert datasource["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
