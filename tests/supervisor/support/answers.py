"""What a daemon answers, and what the commands make of it."""

from typing import Any

AT = 1_750_000_000.0
"""When it is asked: a Unix time."""

NOT_PAUSED = {side: {"paused_connections": 0, "buffered_bytes": 0} for side in ("downstream", "upstream")}

STATUS_RESULT: dict[str, Any] = {
    "version": "0.2.0",
    "engine": "compiled",
    "python": "3.11.4",
    "pid": 812,
    "state": "serving",
    "ready": True,
    "uptime_s": 274_000.0,
    "generation": 3,
    "config": "/etc/gaiod/gaiod.yaml",
    "last_reload": {"ok": True, "at": AT - 250, "error": None},
    "workers": [
        {
            "worker": 0,
            "instance": 3,
            "pid": 813,
            "generation": 3,
            "state": "serving",
            "age_s": 250.0,
            "heartbeat_age_s": 0.12,
            "connections": 1234,
            "memory_bytes": 52 * 2**20,
            "cpu_seconds": 3723.0,
            "restarts": 2,
            "busy": 0.42,
            "loop_lag_s": 0.005,
        },
        {
            "worker": 1,
            "instance": 14,
            "pid": None,
            "generation": 3,
            "state": "waiting",
            "age_s": None,
            "heartbeat_age_s": None,
            "connections": None,
            "memory_bytes": None,
            "cpu_seconds": None,
            "restarts": 12,
            "busy": None,
            "loop_lag_s": None,
        },
    ],
    "listeners": [
        {
            "listener": "echo",
            "bind": "127.0.0.1:7000",
            "handler": "echo",
            "state": "serving",
            "connections": 1234,
            "connections_max": 1000,
            "accepted": 99_999,
            "received_bytes": 2**40,
            "sent_bytes": 2**40,
            "queue": 0,
            "queue_limit": 1024,
            "waiting_for_server": None,
            "rates": {"accepted": 0.3, "received_bytes": 12.3 * 2**20, "sent_bytes": 900.0},
            "backpressure": NOT_PAUSED,
        },
        {
            "listener": "local",
            "bind": "unix:/run/local.sock",
            "handler": "/srv/handlers/balancer.py:Balancer",
            "state": "drained",
            "connections": 0,
            "connections_max": 100,
            "accepted": 0,
            "received_bytes": 0,
            "sent_bytes": 0,
            "queue": None,
            "queue_limit": None,
            "waiting_for_server": 3,
            "rates": {"accepted": None, "received_bytes": None, "sent_bytes": None},
            "backpressure": NOT_PAUSED,
        },
    ],
    "servers": [],
    "feeder": None,
    "sources": [],
}

CONNECTIONS_RESULT: dict[str, Any] = {
    "total": 2,
    "connections": [
        {
            "id": "3-1831",
            "listener": "echo",
            "worker": 0,
            "peer": "127.0.0.1:50000",
            "phase": "data",
            "server": "192.0.2.9:80",
            "age_s": 250.0,
            "idle_s": 0.4,
            "received_bytes": 12.3 * 2**20,
            "sent_bytes": 17,
            "pending_bytes": 100_000,
            "stalled_s": 170.0,
            "waiting_s": 70.0,
            "buffered_bytes": 100_000,
        },
        {
            "id": "14-10003",
            "listener": "local",
            "worker": 1,
            "peer": "unix:/tmp/\x1b[31m",
            "phase": "queue",
            "server": None,
            "age_s": 3.0,
            "idle_s": 3.0,
            "received_bytes": 0,
            "sent_bytes": 0,
            "pending_bytes": 0,
            "stalled_s": None,
            "waiting_s": None,
            "buffered_bytes": 0,
        },
    ],
}

STATUS_TEXT = """\
gaiod 0.2.0, compiled engine, Python 3.11.4: serving, up 3d 4h, process 812
configuration /etc/gaiod/gaiod.yaml, generation 3
last reload 4m 10s ago

WORKER  INSTANCE  PID  STATE    CONNS  HEARTBEAT    MEMORY    CPU     AGE  GEN  RESTARTS
     0         3  813  serving   1234       0.1s  52.0 MiB  1h 2m  4m 10s    3         2
     1        14    -  waiting      -          -         -      -       -    3        12

LISTENER  BIND             HANDLER          STATE    CONNS  ACCEPTED    RECEIVED     SENT  ACCEPT QUEUE  WAITING
echo      127.0.0.1:7000   echo             serving   1234     0.3/s  12.3 MiB/s  900 B/s        0/1024        -
local     unix:/...l.sock  balanc...lancer  drained      0         -           -        -             -        3"""

CONNECTIONS_TEXT = r"""
      ID  LISTENER  PEER                SERVER        STALLED  BUFFERED     AGE  IDLE  RECEIVED  SENT
  3-1831  echo      127.0.0.1:50000     192.0.2.9:80   1m 10s  97.7 KiB  4m 10s  0.4s  12.3 MiB  17 B
14-10003  local     unix:/tmp/\x1b[31m  -                   -       0 B    3.0s  3.0s       0 B   0 B"""[1:]
