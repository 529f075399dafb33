"""The alerts fire when they should and not when they should not, and say what to do."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.support.waiting import LIMIT_S
from e2e.support.tools import tool
from panels import KNOWN

from deploy.support.lint import metrics_of

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "gaiod.rules.yml").read_text())["groups"][0]["rules"]
CASES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "gaiod.rules.test.yml").read_text())["tests"]
ALERTS = {
    "Down", "WorkerRestarting", "WorkerHung", "ConnectionsNearLimit", "Rejecting", "ProxyHeadersRefused", "FdNearLimit",
    "LoopLagHigh", "BackpressureStuck", "ForgottenConnections", "UpstreamDown", "PushSourceDown", "PushDropping",
    "FeederRestarting", "ConfigReloadFailed", "AcceptFailing", "HandlerErrors", "CodeChanged", "ConnectionsStay",
    "CertificateEnds", "OcspResponseEnds", "FileBroken", "UpstreamTls",
}  # fmt: skip


def _promtool(*arguments: str) -> None:
    command = [tool("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=3 * LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_is_accepted_and_has_the_rules() -> None:
    _promtool("check", "config", "prometheus.yml")


def test_rules_are_accepted() -> None:
    _promtool("check", "rules", "--lint-fatal", "gaiod.rules.yml")


def test_alerts_fire_when_they_should_and_say_what_they_should() -> None:
    _promtool("test", "rules", "gaiod.rules.test.yml")


def test_there_is_an_alert_for_everything_that_needs_somebody() -> None:
    assert {rule["alert"] for rule in RULES} == {f"Gaiod{name}" for name in ALERTS}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    tests = [test for case in CASES for test in case["alert_rule_test"] if test["alertname"] == f"Gaiod{name}"]
    fired = {alert["exp_labels"]["severity"] for test in tests for alert in test["exp_alerts"]}
    assert fired == {rule["labels"]["severity"] for rule in RULES if rule["alert"] == f"Gaiod{name}"}
    assert any(not test["exp_alerts"] for test in tests)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_alert_asks_for_metrics_that_there_are_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert {name.removesuffix("_bucket") for name in metrics_of(rule["expr"])} <= set(KNOWN)
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
    assert "`" in rule["annotations"]["description"] or "gaiod_" in rule["annotations"]["description"]
