"""deploy/container: the image's steps, done without an engine; the Dockerfile and the compose file, looked at."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.support.processes import REPOSITORY
from core.support.waiting import LIMIT_S
from e2e.support.clients import echoes, request
from e2e.support.installed import clean_environment, installed
from e2e.support.procfs import PROC, children_of, status_of
from e2e.support.waiting import wait_until

from deploy.support.dockerfiles import Stage, stages_of
from deploy.support.images import Builder, container, inside
from gaiod.config import load
from gaiod.version import __version__

FOLDER = REPOSITORY / "deploy" / "container"
CONFIG, COMPOSE = FOLDER / "gaiod.yaml", FOLDER / "compose.yaml"
BUILDER, IMAGE = stages_of(FOLDER / "Dockerfile")
TAG = re.compile(r"[a-z0-9./-]+:v?\d[\w.-]*")
"""An image with a tag that begins with a number: not latest, and not none, which means it."""


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


NOTHING_TO_COMPILE_WITH = {"CC": "/bin/false", "PIP_NO_BUILD_ISOLATION": "false"}
"""No compiler, and no Cython either, which takes a minute. (pip: false means that there is no isolation.)"""


# -- the steps -------------------------------------------------------------------------------------------


def build(folder: Path, stage: Stage, **environment: str) -> tuple[Builder, list["subprocess.CompletedProcess[str]"]]:
    """Do what a stage says but for what is the system's (apt-get); return the place, and how each RUN ended."""
    builder, done = Builder(folder, **environment), []
    for instruction, arguments in stage.steps:
        match instruction:
            case "WORKDIR":
                builder.enter(arguments)
            case "COPY":
                builder.copy(arguments)
            case "RUN" if not arguments.startswith("apt-get "):
                done.append(builder.run(arguments, wheels=folder.parent / "wheels"))
    return builder, done


@pytest.mark.thorough
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces everywhere")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "compiled"])
def test_image_serves_buries_orphans_and_stops_in_order(tmp_path: Path, compiled: bool) -> None:
    """Quick is a builder that cannot compile: it must refuse to go on, and what it has made serves all the same."""
    _, (wheel, check) = build(tmp_path / "builder", BUILDER, **({} if compiled else NOTHING_TO_COMPILE_WITH))
    assert wheel.returncode == 0, wheel.stderr
    assert (check.returncode == 0) == compiled, "the check for compiled modules"
    root, (install,) = build(tmp_path / "image", IMAGE, CC="/bin/false")
    assert install.returncode == 0, install.stderr
    (tmp_path / "root" / "etc" / "gaiod").mkdir(parents=True)
    config = (root.root / "etc" / "gaiod" / "gaiod.yaml").read_text()
    (tmp_path / "root" / "etc" / "gaiod" / "gaiod.yaml").write_text(re.sub(r"(0\.0\.0\.0):\d+", r"\1:0", config))

    program = str(root.venv / "bin" / "gaiod")
    assert IMAGE.words("ENTRYPOINT") == ["gaiod"]
    command = container(tmp_path / "root", root.venv, IMAGE, [program, *IMAGE.words("CMD")])
    with installed(command, tmp_path, clean_environment()) as daemon:
        assert echoes(daemon.address("echo"))
        assert request(daemon.metrics, "/readyz").status == 200
        (first,) = children_of(daemon.pid)
        assert status_of(first)["NSpid"].split()[-1] == "1"
        check_rights(first)
        check_health(first, [program, *json.loads(IMAGE.one("HEALTHCHECK").partition(" CMD ")[2])[1:]])
        check_orphan(first)
        os.kill(first, signal.SIGTERM)
        assert daemon.wait() == 0, daemon.log()


def check_rights(first: int) -> None:
    """Nothing runs with a right, and nothing can be written but for /tmp."""
    (supervisor,) = children_of(first)
    for pid in (first, supervisor, *children_of(supervisor)):
        status = status_of(pid)
        assert status["Uid"].split() == ["65532"] * 4
        assert (int(status["CapBnd"], 16), int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    for path, writable in (("/file", False), ("/usr/file", False), ("/etc/gaiod/file", False), ("/tmp/file", True)):
        done = subprocess.run(
            inside(first, IMAGE, ["touch", path]),
            capture_output=True,
            timeout=LIMIT_S,
            env=clean_environment(),
            check=False,
        )
        assert (done.returncode == 0) == writable, path


def check_health(first: int, command: list[str]) -> None:
    done = subprocess.run(
        inside(first, IMAGE, command),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("healthy: serving, ")


def check_orphan(first: int) -> None:
    """One whose parent has ended comes to process 1, and is gone, not a zombie, when it ends."""
    before = set(children_of(first))
    command = inside(first, IMAGE, ["sh", "-c", "exec 3<&0; (read line <&3) &"])
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, env=clean_environment())
    try:
        assert parent.wait(LIMIT_S) == 0
        (orphan,) = wait_until(lambda: set(children_of(first)) - before, "an orphan of process 1")
    finally:
        assert parent.stdin is not None
        parent.stdin.close()
    wait_until(lambda: not (PROC / str(orphan)).exists(), "the orphan's burial")


# -- the Dockerfile ----------------------------------------------------------------------------------------


def test_base_images_have_versions_and_the_last_is_slim() -> None:
    assert all(TAG.fullmatch(stage.image) for stage in (BUILDER, IMAGE))
    assert "-slim" in IMAGE.image
    assert BUILDER.image == IMAGE.image, "another Python, or another libc: the wheels would not do"


def test_compiler_stays_in_the_builder() -> None:
    assert any("gcc" in step for step in BUILDER.all("RUN"))
    assert not [step for step in IMAGE.all("RUN") if "apt" in step or "gcc" in step]


def test_image_is_run_by_a_number_that_is_not_root() -> None:
    assert IMAGE.one("USER") == "65532:65532"
    last_step = [instruction for instruction, _ in IMAGE.steps if instruction in ("RUN", "COPY", "USER")][-1]
    assert last_step == "USER", "steps behind it would belong to that user"


def test_signals_reach_gaiod_and_not_a_shell() -> None:
    assert (IMAGE.words("ENTRYPOINT"), IMAGE.one("STOPSIGNAL")) == (["gaiod"], "SIGTERM")
    options, _, health = IMAGE.one("HEALTHCHECK").partition(" CMD ")
    assert json.loads(health) == ["gaiod", "health"]
    assert options


def test_context_has_what_is_copied_and_no_more() -> None:
    """.dockerignore begins with everything: what it lets in is what the Dockerfile wants of it."""
    first, *rules = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    copied = {source for stage in (BUILDER, IMAGE) for step in stage.all("COPY") for source in step.split()[:-1]}
    assert first == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((REPOSITORY / source).exists() for source in copied)


def test_ports_are_those_of_the_configuration() -> None:
    settings = load(CONFIG)
    binds = [*(listener.bind for listener in settings.listeners), settings.metrics_listen]
    assert [bind.rpartition(":")[2] for bind in binds] == IMAGE.one("EXPOSE").split()
    assert all(bind.startswith("0.0.0.0:") for bind in binds)


# -- the compose file ----------------------------------------------------------------------------------------


def test_images_have_versions_and_gaiods_is_this_one(composed: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in composed["services"].items()}
    assert all(TAG.fullmatch(image) for image in images.values())
    assert images["gaiod"] == f"gaiod:{__version__}"
    assert f"--tag gaiod:{__version__} " in (FOLDER / "Dockerfile").read_text()


def mounts_of(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what of this repository a service gets, and where."""
    pairs = [tuple(volume.split(":")[:2]) for volume in service.get("volumes", [])]
    return [(source, target) for source, target in pairs if source.startswith(".")]


def test_every_file_that_is_mounted_exists(composed: dict[str, Any]) -> None:
    mounts = [mount for service in composed["services"].values() for mount in mounts_of(service)]
    assert len(mounts) >= 4
    missing = [source for source, _ in mounts if not (FOLDER / source).exists()]
    assert not missing


def test_volumes_are_declared(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        named = {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
        assert named <= set(composed["volumes"])


def test_ports_are_published_on_the_loopback_only_and_the_metrics_not_at_all(composed: dict[str, Any]) -> None:
    ports = [port for service in composed["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    settings = load(CONFIG)
    listening = {listener.bind.rpartition(":")[2] for listener in settings.listeners}
    assert {port.rpartition(":")[2] for port in ports} == {"9090", "3000", *listening}


def test_graphs_come_from_prometheus_and_those_from_gaiod(composed: dict[str, Any]) -> None:
    """The files say 127.0.0.1, so all must be in one network namespace."""
    owner, *others = [composed["services"][name].get("network_mode") for name in ("prometheus", "gaiod", "grafana")]
    assert (owner, others) == (None, ["service:prometheus"] * 2)
    scraped = yaml.safe_load((FOLDER / "../prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for each in job["static_configs"] for target in each["targets"]]
    assert f"127.0.0.1:{load(CONFIG).metrics_listen.rpartition(':')[2]}" in targets
    provisioning = FOLDER / "../grafana/provisioning"
    sources = [
        source["url"]
        for path in (provisioning / "datasources").iterdir()
        for source in yaml.safe_load(path.read_text())["datasources"]
    ]
    assert "http://127.0.0.1:9090" in sources
    mounted = [target for _, target in mounts_of(composed["services"]["grafana"])]
    for path in (provisioning / "dashboards").iterdir():
        for provider in yaml.safe_load(path.read_text())["providers"]:
            folder = provider["options"]["path"]
            assert [target for target in mounted if Path(target).parent == Path(folder)], f"nothing is in {folder}"


def test_container_of_compose_may_write_nowhere_but_in_tmp(composed: dict[str, Any]) -> None:
    gaiod = composed["services"]["gaiod"]
    assert (gaiod["read_only"], gaiod["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in gaiod["security_opt"]
    assert [path.partition(":")[0] for path in gaiod["tmpfs"]] == ["/tmp"]


def test_compose_waits_for_as_long_as_stopping_may_take(composed: dict[str, Any]) -> None:
    settings = load(CONFIG)
    waits_s = float(composed["services"]["gaiod"]["stop_grace_period"].removesuffix("s"))
    assert waits_s >= settings.stop_grace_s + settings.drain_timeout_s + 5
    assert composed["services"]["gaiod"]["ulimits"]["nofile"]["soft"] > 2 * sum(
        listener.connections_max for listener in settings.listeners
    )
