"""From a file to Settings; files that are none."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from gaiod.config import ConfigErrors, load, loads
from gaiod.config.loading import FILE_MAX_BYTES
from gaiod.handler.handler import Handler
from gaiod.settings import (
    ConnectionLogSettings,
    ListenerSettings,
    LogSettings,
    PerAddressSettings,
    ProxyProtocolSettings,
    RecycleSettings,
    Settings,
    settings_from,
)

ECHO = "listeners: {echo: {bind: 127.0.0.1:7000, handler: echo}}\n"

EVERY_KEY = """\
workers: 3
pin_workers: true
heartbeat_timeout: 4s
slow_hook: 250ms
connections_max: 99
drain_timeout: 5s
stop_grace: 6s
recycle: {age: 7d, memory: 512MiB, connections: 1000000}
user: gaiod
group: adm
metrics: {listen: "[::1]:9999"}
control: {listen: unix:/run/gaiod/control.sock}
log:
  format: json
  file: /var/log/gaiod.log
  connections: {open: true, close: true, every: 1m, rate: 50}
listeners:
  kit:
    bind: unix:/run/kit.sock
    handler: kit
    with: {name: a, wait: 2s}
    connections_max: 7
    idle_timeout: 8s
    backlog: 9
    socket_mode: "0660"
    nodelay: false
    keepalive: false
    user_timeout: 30s
    congestion: bbr
    notsent_lowat: 128KiB
  echo:
    bind: 127.0.0.1:7000
    handler: ./echo.py
    proxy_protocol: {from: [10.0.0.0/8, "::1/128"], timeout: 2s}
    per_address: {connections_max: 5, new: 30/m, burst: 9, ipv6_prefix: 56, exempt: [192.0.2.0/24]}
"""

Loader = Callable[[str], type[Handler]]


def problems(path: str | Path, load_handler: Loader) -> list[str]:
    with pytest.raises(ConfigErrors) as errors:
        load(path, load_handler=load_handler)
    return [str(error) for error in errors.value.errors]


def test_every_key_reaches_the_settings(tmp_path: Path, load_handler: Loader) -> None:
    file = tmp_path / "gaiod.yaml"
    file.write_text(EVERY_KEY)
    assert load(file, load_handler=load_handler) == Settings(
        listeners=(
            ListenerSettings(
                name="kit",
                bind="unix:/run/kit.sock",
                handler="kit",
                options={"name": "a", "wait": 2.0},
                buffer_limit_bytes=65536,
                connections_max=7,
                idle_timeout_s=8.0,
                backlog=9,
                socket_mode=0o660,
                nodelay=False,
                keepalive_s=None,
                user_timeout_s=30.0,
                congestion="bbr",
                notsent_lowat_bytes=131072,
            ),
            ListenerSettings(
                name="echo",
                bind="127.0.0.1:7000",
                handler=str(tmp_path / "echo.py"),
                proxy_protocol=ProxyProtocolSettings(("10.0.0.0/8", "::1/128"), timeout_s=2.0),
                per_address=PerAddressSettings(5, 0.5, 9, 56, ("192.0.2.0/24",)),
            ),
        ),
        workers=3,
        pin_workers=True,
        heartbeat_timeout_s=4.0,
        slow_hook_s=0.25,
        connections_max=99,
        drain_timeout_s=5.0,
        stop_grace_s=6.0,
        recycle=RecycleSettings(age_s=7 * 86400.0, memory_bytes=512 << 20, connections=1_000_000),
        user="gaiod",
        group="adm",
        metrics_listen="[::1]:9999",
        control_listen="unix:/run/gaiod/control.sock",
        log=LogSettings(
            format="json",
            file="/var/log/gaiod.log",
            connections=ConnectionLogSettings(opened=True, closed=True, every_s=60.0, rate=50),
        ),
    )


def test_handler_file_is_beside_a_configuration_given_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_handler: Loader
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text(ECHO.replace("handler: echo", "handler: ./shout.py"))
    monkeypatch.chdir(tmp_path)
    settings = load("conf/a.yaml", load_handler=load_handler)
    assert settings.listeners[0].handler == str(tmp_path / "conf" / "shout.py")


def test_handler_file_is_beside_the_link_not_its_target(tmp_path: Path, load_handler: Loader) -> None:
    """A Kubernetes ConfigMap is mounted as a link into a folder whose name changes with each version."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "a.yaml").write_text(ECHO.replace("handler: echo", "handler: ./shout.py"))
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    settings = load(tmp_path / "a.yaml", load_handler=load_handler)
    assert settings.listeners[0].handler == str(tmp_path / "shout.py")


def test_messages_repeat_the_path_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_handler: Loader
) -> None:
    (tmp_path / "a.yaml").write_text("workers: 0\n" + ECHO)
    monkeypatch.chdir(tmp_path)
    assert problems("a.yaml", load_handler) == ["a.yaml:1:10: workers: 0 is out of range; write 1 to 1024"]
    with pytest.raises(ConfigErrors, match=r"^mine:1:10: workers: "):
        loads("workers: 0\n" + ECHO, path="mine", load_handler=load_handler)


def test_path_that_cannot_be_read_is_reported(tmp_path: Path, load_handler: Loader) -> None:
    give = "give the path of a configuration file that can be read"
    assert problems(tmp_path / "no", load_handler) == [f"{tmp_path}/no: No such file or directory; {give}"]
    assert problems(tmp_path, load_handler) == [f"{tmp_path}: Is a directory; {give}"]
    assert problems("a\0b", load_handler) == [f"a\0b: embedded null byte; {give}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_reported(tmp_path: Path, load_handler: Loader) -> None:
    (tmp_path / "a.yaml").write_text(ECHO)
    (tmp_path / "a.yaml").chmod(0)
    assert "Permission denied; " in problems(tmp_path / "a.yaml", load_handler)[0]


@pytest.mark.parametrize("kind", ["device", "fifo", "socket"])
def test_what_is_no_file_is_reported_and_not_waited_for(tmp_path: Path, load_handler: Loader, kind: str) -> None:
    """A device may never end, and nobody may ever write to a FIFO."""
    path = tmp_path / "gaiod.yaml"
    with socket.socket(socket.AF_UNIX) as sock:
        match kind:
            case "device":
                path = Path("/dev/zero")
            case "fifo":
                os.mkfifo(path)
            case _:
                sock.bind(str(path))
        (problem,) = problems(path, load_handler)
    assert problem.startswith(f"{path}: {'is a device, a FIFO or a socket' if kind != 'socket' else 'No such device'}")


def test_file_may_be_as_large_as_the_limit(tmp_path: Path, load_handler: Loader) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(ECHO + "#" * (FILE_MAX_BYTES - len(ECHO)))
    assert load(file, load_handler=load_handler).listeners
    file.write_text(ECHO + "#" * (FILE_MAX_BYTES - len(ECHO) + 1))
    assert problems(file, load_handler) == [f"{file}: is larger than 1MiB; give a configuration file"]


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\xff\xfew\x00", "1:1: the byte 0xff"),
        (b"\n\xff", "2:1: the byte 0xff"),
        ("# ü\nworkers: ü".encode() + b"\xe9", "2:11: the byte 0xe9"),
        ("# ü".encode("latin-1") + b"\n", "1:3: the byte 0xfc"),
    ],
)
def test_file_not_utf8_is_reported(tmp_path: Path, load_handler: Loader, data: bytes, place: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    assert problems(file, load_handler) == [f"{file}:{place} is not UTF-8; save the file as UTF-8"]


def test_file_that_is_empty_is_reported(tmp_path: Path, load_handler: Loader) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"")
    assert problems(file, load_handler) == [f"{file}:1:1: the file is empty; start with listeners:"]


def test_settings_survive_the_journey_to_a_worker_as_json(load_handler: Loader) -> None:
    announced = ECHO.replace("handler: echo", "handler: echo, proxy_protocol: {from: [10.0.0.0/8]}")
    settings = loads("recycle: {age: 1d}\nlog: {connections: {every: 5s}}\n" + announced, load_handler=load_handler)
    assert settings_from(json.loads(json.dumps(asdict(settings)))) == settings


def test_settings_are_equal_and_frozen_for_equal_texts(load_handler: Loader) -> None:
    """What a reload compares, to leave unchanged listeners alone."""
    settings = loads(ECHO, load_handler=load_handler)
    assert settings == loads("# the same\n" + ECHO, load_handler=load_handler)
    with pytest.raises(AttributeError):
        settings.workers = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("idle_timeout: 1h", None), ("idle_timeout: 10m", 600.0), ("idle_timeout: 1h, user_timeout: 30s", 30.0)],
)
def test_user_timeout_follows_the_idle_timeout_unless_it_is_given(
    load_handler: Loader, line: str, expected: float | None
) -> None:
    text = f"listeners: {{echo: {{bind: 127.0.0.1:7000, handler: echo, {line}}}}}"
    (listener,) = loads(text, load_handler=load_handler).listeners
    assert listener.user_timeout_s == expected
