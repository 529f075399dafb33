"""Write the dashboard, `gaiod.json` beside this file: `python deploy/grafana/generate.py`.

`panels.py` says which panel shows which metrics. The rest follows from what `gaiod.observe.metrics` declares: a counter
is shown as its rate, a histogram as its median and its 99th percentile, a gauge as it is, and the description of a
panel is what its metrics mean.
"""

import json
from pathlib import Path
from typing import Any

from panels import KNOWN, ROWS, Line, Panel

FILE = Path(__file__).parent / "gaiod.json"

QUANTILES = (0.5, 0.99)
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NUMBERS = ("worker", "generation")
"""Labels whose values are only numbers."""
WIDTH = 24
"""Of the whole dashboard, as Grafana counts."""

RELOADS = Line("gaiod_config_reloads_total", "instance result", "increase")
DEATHS = Line("gaiod_worker_restarts_total", "instance worker reason", "increase")
LIMIT_STYLE = (
    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
    {"id": "custom.fillOpacity", "value": 0},
    {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
)


def expressions(line: Line, *, is_alone: bool = True) -> list[tuple[str, str]]:
    """Return what a line's targets ask for, and the legend of each.

    Args:
        line: the line.
        is_alone: whether it is the only one of its panel, whose title then says already which metric it is.

    Raises:
        KeyError: the metric is not declared.
    """
    metric, labels = KNOWN[line.metric], line.by.split()
    words = [f"{label} {{{{{label}}}}}" if label in NUMBERS else f"{{{{{label}}}}}" for label in labels]
    if not (is_alone and labels):
        words.append(metric.name.removeprefix("gaiod_").removesuffix("_total").replace("_", " "))
    legend = " ".join(words)
    if metric.kind == "histogram":
        by = ", ".join([*labels, "le"])
        rates = f"sum by ({by}) (rate({_selector(metric.name + '_bucket')}[$__rate_interval]))"
        asked = [(f"histogram_quantile({each:g}, {rates})", f"p{100 * each:g} {legend}") for each in QUANTILES]
    else:
        by = f" by ({', '.join(labels)}) " if labels else ""
        values = _selector(metric.name)
        if metric.kind == "counter":
            values = f"{'increase' if line.how == 'increase' else 'rate'}({values}[$__rate_interval])"
        asked = [(f"{'sum' if line.how == 'increase' else line.how}{by}({values})", legend)]
    return [(line.formula.format(expression), legend) for expression, legend in asked]


def _selector(name: str) -> str:
    return f'{name}{{job=~"$job", instance=~"$instance"}}'


def _panel(panel_id: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    asked = [(line, *pair) for line in panel.lines for pair in expressions(line, is_alone=len(panel.lines) == 1)]
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend,
            "range": True,
        }
        for index, (_, expression, legend) in enumerate(asked)
    ]
    overrides = [
        {"matcher": {"id": "byFrameRefID", "options": target["refId"]}, "properties": list(LIMIT_STYLE)}
        for target, (line, _, _) in zip(targets, asked, strict=True)
        if line.is_limit
    ]
    return {
        "id": panel_id,
        "type": "timeseries" if panel.kind in ("chart", "events") else "stat",
        "title": panel.title,
        "description": " ".join(dict.fromkeys(KNOWN[line.metric].help for line in panel.lines)),
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_look(panel)}, "overrides": overrides},
        "options": _options(panel),
        "targets": targets,
    }


def _look(panel: Panel) -> dict[str, Any]:
    """Return how values are drawn: the defaults of a panel's fields."""
    if panel.kind == "number":
        return {"color": {"mode": "fixed", "fixedColor": "text"}}
    if panel.kind == "state":
        no, yes = ("red", "green") if panel.good == "yes" else ("green", "orange")
        steps = [{"color": no, "value": None}, {"color": yes, "value": 1}]
        return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    custom = {"drawStyle": "line", "fillOpacity": 10, "showPoints": "never"}
    if panel.kind == "events":  # increases are extrapolated: one of 1.3 is one
        return {"min": 0, "decimals": 0, "custom": {**custom, "drawStyle": "bars", "fillOpacity": 80}}
    return {"min": 0, "custom": custom}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind in ("chart", "events"):
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "textMode": "value_and_name",
        "colorMode": "background" if panel.kind == "state" else "none",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"]},
    }


def _panels() -> list[dict[str, Any]]:
    """Return the panels of all rows, from left to right and from the top down."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        x, y, below = 0, y + 1, y + 1
        for panel in panels:
            width, height = (6, 4) if panel.kind in ("number", "state") else (8, 8)
            if x + width > WIDTH:
                x, y = 0, below
            made.append(_panel(len(made) + 1, panel, {"x": x, "y": y, "w": width, "h": height}))
            x, below = x + width, max(below, y + height)
        y = below
    return made


def _variable(name: str, label: str, values_of: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values_of,
        "query": {"query": values_of, "refId": name},
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def _marks(name: str, color: str, line: Line) -> dict[str, Any]:
    """Return what is marked in every chart: moments at which something happened."""
    ((expression, legend),) = expressions(line)
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": color,
        "expr": f"{expression} > 0",
        "titleFormat": f"{name}: {legend}",
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana reads it."""
    return {
        "uid": "gaiod",
        "title": "gaiod",
        "description": "Everything that gaiod exports. Made by generate.py: change it there.",
        "tags": ["gaiod"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_marks("Reloads", "blue", RELOADS), _marks("Workers replaced", "orange", DEATHS)]},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                },
                _variable("job", "Job", "label_values(gaiod_build_info, job)"),
                _variable("instance", "Instance", 'label_values(gaiod_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": _panels(),
    }


def text() -> str:
    """Return what the file has to be."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
