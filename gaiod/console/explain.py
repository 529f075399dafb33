"""What `gaiod explain` says: plain sentences about one connection."""

from collections.abc import Iterator, Mapping
from typing import Any

from gaiod.console.columns import duration, shown, size

Told = Mapping[str, Any]

REASONS = {
    "peer_eof": "The client sent its end first, and everything for it was sent.",
    "peer_reset": "The client reset it.",
    "user_timeout": "What was sent was not acknowledged, or not taken, for user_timeout: the kernel gave it up.",
    "keepalive": "Keepalive probes were not answered: the other machine, or the way to it, is gone.",
    "unreachable": "What was sent was not acknowledged, and a router said that there is no way there.",
    "server_eof": "The server sent its end first, and everything was passed on.",
    "server_reset": "The server reset its connection, so the client was reset, too.",
    "server_down": "Its server was found to be down, and on_down closes who is connected to it.",
    "no_server": "There was no server for it.",
    "tls_truncated": "Its stream, or its server's, ended without a close_notify: the end of the data may be missing.",
    "tls_error": "TLS with it, or with its server, failed: the protocol was broken, or the other end sent an alert.",
    "handler": "Its handler closed it.",
    "idle": "Nothing moved for idle_timeout.",
    "half_closed_timeout": "One direction had ended, and nothing moved in the other for half_closed_timeout.",
    "max_age": "It was as old as max_age allows.",
    "deadline": "The peer did not do in time what a deadline of its handler's demanded.",
    "slow_consumer": "It did not take what was published: more waited than slow_consumer.limit allows, or for longer "
    "than grace.",
    "drain": "Its worker or its listener was drained (a stop, a reload, `gaiod drain`), and it had not ended in time.",
    "admin": "An operator closed it: `gaiod kill`.",
    "ban": "An operator has banned its address: `gaiod ban`.",
    "handler_error": "A hook of its handler raised an exception; the log has the traceback.",
    "forgotten": "Its handler dropped it: it had no pending operation and no reference. That is a bug in the handler.",
    "error": "The kernel of this machine ended it; neither end is to blame. One cause is `ss --kill`.",
    "worker_lost": "Its worker died, and all its connections with it; the log says of what.",
}
"""A sentence for each of `gaiod.stats.cells.CLOSE_REASONS`."""

CAUSES = {
    "down": "All of them are down: their checks fail.",
    "full": "All of them have their connections_max, and as many clients wait as queue.length allows.",
    "queue_timeout": "All of them had their connections_max for as long as queue.timeout lets a client wait.",
    "unresolved": "Their names could not be resolved.",
    "drained": "An operator has drained them: `gaiod server`.",
    "no_resources": "gaiod lacked descriptors, memory or ports: raise its limits.",
    "connect_refused": "None could be connected to, as often as retries allows; the last refused.",
    "connect_timeout": "None could be connected to, as often as retries allows; the last did not answer in time.",
    "connect_unreachable": "None could be connected to, as often as retries allows; there is no way to the last.",
    "connect_reset": "None could be connected to, as often as retries allows; the last reset the connection.",
    "connect_tls": "None could be connected to, as often as retries allows; TLS with the last failed (see the log).",
    "no_route": "Nothing that it asked for has a pool in route, and no server is without one.",
    "connect_other": "None could be connected to, as often as retries allows.",
}
"""A sentence for each of `gaiod.stats.cells.UNAVAILABLE_CAUSES`, but the unspecific one."""

WHO = {"downstream": "the client", "upstream": "the server"}
OTHER = {"downstream": "upstream", "upstream": "downstream"}


def explanation_text(told: Told) -> str:
    """Return what `gaiod explain` prints."""
    return "\n".join(_closed(told) if told["state"] == "closed" else _open(told))


def _closed(told: Told) -> Iterator[str]:
    word = told["reason"]
    yield f"connection {told['id']} is closed: {shown(word)}"
    yield f"  {REASONS.get(word, f'Its handler closed it, and calls that {shown(word)}.')}"
    if word == "no_server" and told.get("cause") in CAUSES:
        yield f"  {CAUSES[told['cause']]}"
    yield f"  {_ending(told)}"
    yield f"  It was from {shown(told['peer'])}, on listener {shown(told['listener'])}, worker {told['worker']}."
    yield f"  It closed {duration(told['closed_ago_s'])} ago, after {duration(told['age_s'])}."
    yield f"  It received {size(told['received_bytes'])}, and was sent {size(told['sent_bytes'])}."


def _ending(told: Told) -> str:
    """Return the termination state, as the log has it, in a sentence."""
    cause = f" ({shown(told['cause'])})" if told.get("cause") else ""
    server = f"; its server was {shown(told['server'])}" if told.get("server") else ""
    return f"Ended by: {shown(told['who'])}; how: {shown(told['how'])}{cause}; phase: {shown(told['phase'])}{server}."


def _open(told: Told) -> Iterator[str]:
    sides = told["sides"]
    yield (
        f"connection {told['id']} is open: listener {shown(told['listener'])}, worker {told['worker']}, "
        f"from {shown(told['peer'])}, for {duration(sides[0]['age_s'])}, phase {shown(told['phase'])}"
    )
    if "kept" in told:
        yield f"  Reloads have not changed its listener, so it stays with this worker, of generation {told['kept']}."
    if told.get("moved") is not None:
        yield f"  {_moved(told['moved'])}"
    for note in told["notes"]:
        yield f"  {shown(note)}"
    if told.get("busy"):
        yield "  It is busy: an answer to it is outstanding, for which a drain waits."
    for side in sides:
        yield ""
        yield f"{WHO[side['side']]}: {shown(side['peer'])}, connection {side['id']}"
        for sentence in _side(side, is_pair=len(sides) > 1):
            yield f"  {sentence}"
    yield ""
    if told.get("is_never_idle"):
        yield "  What is done for it takes its time: until then it is not idle, and idle_timeout does not end it."
        return
    left_s = told["idle_timeout_s"] - max(side["idle_s"] for side in sides)
    yield f"  If nothing moves it is closed in {duration(left_s)}: idle_timeout, {duration(told['idle_timeout_s'])}."


def _moved(moved: Told) -> str:
    """Return the sentence about a connection that another worker has had."""
    often = "" if moved["times"] == 1 else f"; it has moved {moved['times']} times"
    return (
        f"Moved here {duration(moved['ago_s'])} ago from worker {moved['worker']}, generation {moved['generation']}, "
        f"process {moved['process']}{often}."
    )


def _side(side: Told, *, is_pair: bool) -> Iterator[str]:
    who = WHO[side["side"]]
    other = WHO[OTHER[side["side"]]] if is_pair else "whom it is relayed to"
    yield (
        f"Received {size(side['received_bytes'])}, sent {size(side['sent_bytes'])}; "
        f"the last byte moved {duration(side['idle_s'])} ago."
    )
    if side.get("tls") is not None:  # a worker of an earlier version says nothing of it
        yield _tls(side["tls"], "client" if side["side"] == "downstream" else "server")
    writing = side["writing"]
    if writing is not None and writing["operation"] == "connect":
        yield f"It is being connected{_limit(writing)}."
    else:
        yield _reading(side, who, other)
        yield from _writing(side, who)
    if side["group"] is not None:
        yield _group(side["group"])
    if side["is_closing"]:
        why = "" if side["close_reason"] is None else f" ({shown(side['close_reason'])})"
        yield f"It is being closed{why}: once what waits has been sent."
    yield from _kernel(side["kernel"], who)
    if side["blocked_s"] is not None and side["pending_bytes"] and (side["kernel"]["tcp"] or {}).get("user_timeout_s"):
        limit = duration(side["kernel"]["tcp"]["user_timeout_s"])
        yield f"TCP: the kernel gives it up when {who} takes nothing for {limit}: user_timeout."


def _tls(tls: Told, who: str) -> str:
    name = "no server name" if tls["server_name"] is None else f"server name {shown(tls['server_name'])}"
    how = "a resumed session" if tls["resumed"] else "a full handshake"
    alpn = "" if tls["alpn"] is None else f", protocol {shown(tls['alpn'])}"
    subject = tls.get("subject")  # a worker of an earlier version says nothing of it
    doubt = "" if tls.get("is_verified", True) else ", which nobody has verified"
    whose = "" if subject is None else f", {who} certificate {shown(subject)}{doubt}"
    return f"TLS {tls['version']}, {shown(tls['suite'])}, {name}{alpn}{whose}, {how}."


def _reading(side: Told, who: str, other: str) -> str:
    reading, unread = side["reading"], side["kernel"]["receive_queue_bytes"]
    if reading is None:
        if side["at_eof"]:
            return f"Reading: {who} has said that it sends no more."
        waits = f"; {size(unread)} of it wait in the kernel" if unread else ""
        return f"Reading: the handler asks for nothing from {who} now{waits}."
    if reading["operation"] == "handshake":
        return f"Reading: the TLS handshake with {who} is under way{_limit(reading)}."
    if reading["operation"] != "relay":
        return f"Reading: it waits for data from {who}{_limit(reading)}."
    if reading["held_bytes"]:
        return (
            f"Reading: paused for {duration(reading['paused_s'])}, because {other} has not taken "
            f"{size(reading['held_bytes'])} that are held for it (at most {size(reading['limit_bytes'])})"
            f"{_limit(reading)}."
        )
    return f"Reading: it waits for data from {who}, to pass it on to {other}{_limit(reading)}."


def _writing(side: Told, who: str) -> Iterator[str]:
    pending, blocked_s, writing = side["pending_bytes"], side["blocked_s"], side["writing"]
    if not pending:
        if writing is None or writing["operation"] == "write":
            yield "Writing: nothing waits."
        return
    limit = "" if writing is None else _limit(writing)
    if blocked_s is None:
        yield f"Writing: {size(pending)} are being sent to {who}{limit}."
    else:
        yield f"Writing: {size(pending)} wait for {who}, who has taken nothing for {duration(blocked_s)}{limit}."


def _limit(operation: Told) -> str:
    left_s = operation["deadline_in_s"]
    return "" if left_s is None else f"; that ends in {duration(left_s)} at the latest"


def _group(group: Told) -> str:
    topics = ", ".join(shown(topic) or "the only topic" for topic in group["topics"]) or "nothing any more"
    text = f"Subscribed to {topics}: "
    if not group["waiting_messages"]:
        return f"{text}nothing waits."
    count = group["waiting_messages"]
    return (
        f"{text}{count} message{'s' if count != 1 else ''} wait{'s' if count == 1 else ''}, "
        f"{size(group['waiting_bytes'])} of at most {size(group['limit_bytes'])} ({group['policy']}); "
        f"nothing was taken for {duration(group['behind_s'])}."
    )


def _kernel(kernel: Told, who: str) -> Iterator[str]:
    sending, receiving, tcp = kernel["send_queue_bytes"], kernel["receive_queue_bytes"], kernel["tcp"]
    if sending is not None and receiving is not None:
        yield f"Kernel: {size(sending)} in its send queue, {size(receiving)} not read yet."
    if tcp is None:
        return
    yield (
        f"TCP: {tcp['state']}, round trip {tcp['rtt_s'] * 1000:.1f} ms (varying by {tcp['rttvar_s'] * 1000:.1f} ms), "
        f"{tcp['unacked_segments']} segments not acknowledged, {tcp['retransmits_total']} sent again so far; the last "
        f"data came {duration(tcp['last_received_s'])} ago."
    )
    if tcp["window_probes"]:
        yield f"TCP: the window of {who} is closed: {tcp['window_probes']} probes were not answered by a larger one."
    if tcp["retransmits"]:
        yield f"TCP: {who} does not acknowledge: {tcp['retransmits']} tries in a row."
