"""What a daemon answers to `explain`."""

from typing import Any

KERNEL: dict[str, Any] = {
    "send_queue_bytes": 0,
    "receive_queue_bytes": 0,
    "tcp": {
        "state": "established",
        "rtt_s": 0.0123,
        "rttvar_s": 0.0045,
        "unacked_segments": 3,
        "retransmits": 0,
        "retransmits_total": 2,
        "window_probes": 0,
        "last_sent_s": 1.0,
        "last_received_s": 4.0,
        "unsent_bytes": 0,
        "user_timeout_s": 120.0,
    },
}

CLIENT: dict[str, Any] = {
    "side": "downstream",
    "id": "3-1831",
    "peer": "192.0.2.1:50000",
    "age_s": 250.0,
    "idle_s": 5.0,
    "received_bytes": 2**20,
    "sent_bytes": 17,
    "pending_bytes": 0,
    "stalled_s": 0.0,
    "close_reason": None,
    "at_eof": False,
    "is_closing": False,
    "blocked_s": None,
    "reading": {"operation": "read", "deadline_in_s": None},
    "writing": None,
    "group": None,
    "kernel": KERNEL,
}

OPEN: dict[str, Any] = {
    "id": "3-1831",
    "worker": 0,
    "state": "open",
    "listener": "front",
    "handler": "echo",
    "peer": "192.0.2.1:50000",
    "phase": "data",
    "server": None,
    "idle_timeout_s": 300.0,
    "notes": [],
    "sides": [CLIENT],
}

CLOSED: dict[str, Any] = {
    "id": "3-1831",
    "worker": 0,
    "state": "closed",
    "listener": "front",
    "peer": "192.0.2.1:50000",
    "server": "192.0.2.9:80",
    "reason": "idle",
    "who": "gaiod",
    "how": "timeout",
    "cause": "idle_timeout",
    "phase": "data",
    "closed_ago_s": 12.0,
    "age_s": 250.0,
    "received_bytes": 2**20,
    "sent_bytes": 17,
}

OPEN_TEXT = """\
connection 3-1831 is open: listener front, worker 0, from 192.0.2.1:50000, for 4m 10s, phase data

the client: 192.0.2.1:50000, connection 3-1831
  Received 1.0 MiB, sent 17 B; the last byte moved 5.0s ago.
  Reading: it waits for data from the client.
  Writing: nothing waits.
  Kernel: 0 B in its send queue, 0 B not read yet.
  TCP: established, round trip 12.3 ms (varying by 4.5 ms), 3 segments not acknowledged, 2 \
sent again so far; the last data came 4.0s ago.

  If nothing moves it is closed in 4m 55s: idle_timeout, 5m 0s."""

CLOSED_TEXT = """\
connection 3-1831 is closed: idle
  Nothing moved for idle_timeout.
  Ended by: gaiod; how: timeout (idle_timeout); phase: data; its server was 192.0.2.9:80.
  It was from 192.0.2.1:50000, on listener front, worker 0.
  It closed 12s ago, after 4m 10s.
  It received 1.0 MiB, and was sent 17 B."""
