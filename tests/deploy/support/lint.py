"""The rules for dashboards: those of Grafana's dashboard linter, which is a Go program, and a few of our own."""

import re
from typing import Any

DATASOURCE = "${datasource}"
SELECTOR = re.compile(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\([^)]*\)")
QUANTILE = re.compile(r"histogram_quantile\([0-9.]+, sum by \(([a-z_, ]+)\) \(rate\($")
OPERATORS = {"and", "or", "unless", "bool", "offset"}
UNITS = {"bool_yes_no", "bytes", "Bps", "cps", "ops", "percentunit", "s", "short"}
"""Grafana's names for those we use; one it does not know is shown as if there were none."""
ACCUMULATED = ("_total", "_bucket", "_count", "_sum")


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels, without the titles of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def metrics_of(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for, those without a selector included."""
    bare = GROUPING.sub("", re.sub(r"\[[^]]*\]", "", SELECTOR.sub(r"\1", re.sub(r'"[^"]*"', "", expression))))
    words = re.findall(r"(?<![\w$.])([a-z_:][a-z0-9_:]*)(?!\s*\(|\w)", bare)
    return set(words) - OPERATORS


def without_thresholds(expression: str) -> str:
    """Return what an alert compares, whatever it is now: without series on each side it could never fire."""
    shown = re.sub(r" (?:[<>]=?|[=!]=) [0-9.]+", "", expression).replace(" unless ", " and ")
    return re.sub(r"\s[<>]=?\s", " + ", shown)


def complaints(dashboard: dict[str, Any]) -> list[str]:
    """Return what is wrong with a dashboard."""
    found = _of_variables({each["name"]: each for each in dashboard["templating"]["list"]})
    for panel in panels_of(dashboard):
        name = panel.get("title") or f"panel {panel['id']}"
        found += [f"{name}: {text}" for text in _of_panel(panel)]
        for target in panel["targets"]:
            found += [f"{name}: {text}: {target['expr']}" for text in _of_target(target)]
    return found


def _of_variables(variables: dict[str, Any]) -> list[str]:
    found = [f"there is no variable {name}" for name in ("datasource", "job", "instance") if name not in variables]
    source = variables.get("datasource")
    if source is not None and (source["type"], source["query"]) != ("datasource", "prometheus"):
        found.append("the variable datasource does not choose a Prometheus")
    wanted = {"type": "query", "multi": True, "includeAll": True, "allValue": ".+", "refresh": 2}
    for name in ("job", "instance"):
        variable = variables.get(name, {"datasource": {"uid": DATASOURCE}, **wanted})
        found += [
            f"the variable {name} has not {key}: {value}" for key, value in wanted.items() if variable[key] != value
        ]
        if variable["datasource"]["uid"] != DATASOURCE:
            found.append(f"the variable {name} is not from the datasource")
    return found


def _of_panel(panel: dict[str, Any]) -> list[str]:
    found = [f"it has no {key}" for key in ("title", "description", "targets") if not panel.get(key)]
    if (unit := panel["fieldConfig"]["defaults"].get("unit")) not in UNITS:
        found.append(f"it has no unit that Grafana knows: {unit}")
    if panel.get("datasource", {}).get("uid") != DATASOURCE:
        found.append("it does not use the datasource")
    return found


def _of_target(target: dict[str, Any]) -> list[str]:
    expression = target["expr"]
    found = []
    if target.get("datasource", {}).get("uid") != DATASOURCE:
        found.append("a target does not use the datasource")
    if not target.get("legendFormat"):
        found.append("a target has no legend")
    if metrics_of(expression) != {match[1] for match in SELECTOR.finditer(expression)}:
        found.append("a metric has no selector")
    if any(each != "[$__rate_interval]" for each in re.findall(r"\[[^]]*\]", expression)):
        found.append("the range is not $__rate_interval")
    for match in SELECTOR.finditer(expression):
        name, before = match[1], expression[: match.start()]
        for label in ("job", "instance"):
            if f'{label}=~"${label}"' not in match[2]:
                found.append(f"{name} is not filtered by {label}")
        if name.endswith(ACCUMULATED) and not re.search(r"\b(rate|irate|increase)\($", before):
            found.append(f"{name} is shown without its rate")
        if name.endswith("_bucket"):
            quantile = QUANTILE.search(before)
            if quantile is None or "le" not in quantile[1].split(", "):
                found.append(f"{name} is not in a histogram_quantile over sum by (le)")
    return found
