"""The commands that speak to a running daemon: thin. What they ask is in `control/protocol.py`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from gaiod.console.explain import explanation_text
from gaiod.console.probe import probe
from gaiod.console.tables import (
    balance_text,
    bans_text,
    certificates_text,
    connections_text,
    renewal_text,
    servers_text,
    status_text,
)
from gaiod.control.client import Conversation, ask
from gaiod.control.protocol import MESSAGE_MAX_BYTES, VERBS, ControlError, check_message

control_option = click.option(
    "--control",
    metavar="PATH",
    envvar="GAIOD_CONTROL",
    show_envvar=True,
    help="The control socket of the daemon. Default: that of a daemon of the same user.",
)
NO_CHANGES = "nothing has changed; connections go on"
SORTS = [order for order in VERBS["connections"].arguments["sort"].choices if order != "traffic"]
"""Of `connections`: for how fast each one is, somebody has to look twice."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON.")


def _ask(control: str | None, verb: str, **arguments: Any) -> dict[str, Any]:
    """Return the result, or end with the status that the daemon's refusal has."""
    try:
        return ask(control, verb, **arguments)
    except ControlError as error:
        click.echo(error, err=True)
        sys.exit(error.status)


def _print_json(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result, indent=2))


@click.command()
@control_option
@json_option
def status(control: str | None, as_json: bool) -> None:
    """Show the state of a running daemon.

    ACCEPTED, RECEIVED and SENT of a listener are averages over about the last ten seconds. GEN is the generation of
    the configuration that a worker runs.
    """
    result = _ask(control, "status")
    if as_json:
        _print_json(result)
    else:
        click.echo(status_text(result, time.time()))


@click.command()
@click.option("--url", metavar="URL", help="Ask over HTTP instead, such as http://127.0.0.1:9464/readyz.")
@click.option("--servers", is_flag=True, help="Also fail if a listener has servers, and none that takes clients.")
@control_option
def health(url: str | None, *, servers: bool, control: str | None) -> None:
    """Check whether a running daemon serves, as /readyz does.

    Listeners of which no server takes clients (all are down, drained, or without an address) are named. They fail the
    check with --servers only, because a restart of gaiod would not help.

    Exit status: 0 it serves; 69 there is no daemon, or it cannot be reached; 75 it does not serve now (it starts,
    stops, or no worker serves), or does not answer in time.
    """
    if url is not None and servers:
        raise click.UsageError("--servers asks the control socket; leave out --url")
    if url is not None:
        status, text = probe(url)
    else:
        result = _ask(control, "status")
        serving = sum(worker["state"] == "serving" for worker in result["workers"])
        text = f"{result['state']}, {serving} worker{'s' if serving != 1 else ''} serving"
        status = 0 if result["ready"] else os.EX_TEMPFAIL
        for listener in result.get("without_servers", ()):
            text += f"; no server of {listener} takes clients"
            status = os.EX_TEMPFAIL if servers else status
    click.echo(f"{'healthy' if status == 0 else 'not healthy'}: {text}", err=status != 0)
    sys.exit(status)


@click.command()
@click.option("--listener", metavar="NAME", help="Show only connections of this listener.")
@click.option("--sort", type=click.Choice(SORTS), default="age", show_default=True)
@click.option("--limit", type=int, metavar="N", default=100, show_default=True, help="Show at most this many.")
@control_option
@json_option
def connections(listener: str | None, sort: str, limit: int, control: str | None, as_json: bool) -> None:
    """List open connections.

    The oldest come first. `--sort bytes` starts with those that moved most, `--sort stalled` with those that have taken
    nothing of their waiting data for longest, `--sort buffered` with those that have most data waiting. `gaiod top`
    sorts by traffic per second. `--json` has the full names where this table cuts them.
    """
    result = _ask(control, "connections", listener=listener, sort=sort, limit=limit)
    if as_json:
        _print_json(result)
    else:
        click.echo(connections_text(result))


@click.command()
@click.option("--listener", metavar="NAME", help="Show only connections of this listener.")
@click.option(
    "--sort",
    type=click.Choice(["traffic", "stalled", "buffered", "age"]),
    default="traffic",
    show_default=True,
    help="Which connections come first.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 30),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="The time between two pictures.",
)
@click.option("--limit", type=click.IntRange(1, 1000), metavar="N", help="Show at most this many connections.")
@click.option("--once", is_flag=True, help="Print one picture and exit. Implied if there is no terminal.")
@control_option
@click.option("--json", "as_json", is_flag=True, help="Print each picture as a JSON document on one line.")
def top(
    *,
    listener: str | None,
    sort: str,
    interval: float,
    limit: int | None,
    once: bool,
    control: str | None,
    as_json: bool,
) -> None:
    """Watch a running daemon.

    Shows its workers, its listeners, and the connections with the most traffic, the longest stall, or the most data
    waiting. Keys: t, s, b and a sort by traffic, stalled, buffered and age; l selects the next listener; q quits.
    """
    try:
        from gaiod.console.top.program import Wanted, run  # late: only this needs rich, and no daemon has to have it
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        click.echo("gaiod top needs the package rich, which is not installed: pip install 'gaiod[top]'", err=True)
        sys.exit(os.EX_UNAVAILABLE)
    try:
        run(control, Wanted(sort, interval, limit), listener=listener, once=once, as_json=as_json)
    except ControlError as error:
        click.echo(error, err=True)
        sys.exit(error.status)


@click.command()
@click.argument("connection")
@control_option
@json_option
def explain(connection: str, control: str | None, as_json: bool) -> None:
    """Explain why a connection waits, or what closed it.

    CONNECTION is an id from `gaiod connections` or from the log. The daemon remembers the last few thousand connections
    that closed. A proxied connection is explained together with the one to its server.
    """
    result = _ask(control, "explain", connection=connection)
    if as_json:
        _print_json(result)
    else:
        click.echo(explanation_text(result))


@click.command()
@click.argument("connection")
@control_option
def kill(connection: str, control: str | None) -> None:
    """Close one connection at once.

    CONNECTION is an id from `gaiod connections`.
    """
    _ask(control, "kill", connection=connection)
    click.echo(f"closed: {connection}")


@click.group()
def workers() -> None:
    """Control the worker processes."""


@workers.command()
@control_option
def restart(control: str | None) -> None:
    """Replace all workers, one after the other, and wait until it is done.

    New connections go to the new worker. The old one hands its connections over to it, where their handler can describe
    them (handover), and drains the others. So do workers that have kept connections since earlier reloads.
    """
    replaced = _ask(control, "restart")["workers"]
    click.echo(f"restarted: workers {', '.join(map(str, replaced))}")


@click.command()
@click.argument("listener", required=False)
@control_option
@json_option
def rebalance(listener: str | None, control: str | None, as_json: bool) -> None:
    """Even out established connections over the workers.

    Connections of LISTENER, or of each listener, go from workers that have more than their share to those that have
    less, until none is further from the mean than 10 %. Clients notice a pause of some milliseconds. It needs a handler
    that can describe its connections, as echo, proxy and push can. By itself it is done after a worker has died.

    Exit status: 0 they are even; 64 connections of the listener cannot move; 75 some did not move in time
    (handover.timeout), or a reload or an upgrade is under way, or the listener is drained.
    """
    result = _ask(control, "rebalance", listener=listener)
    if as_json:
        _print_json(result)
    else:
        click.echo(balance_text(result))
    sys.exit(0 if result["even"] else os.EX_TEMPFAIL)


@click.group(invoke_without_command=True)
@control_option
@json_option
@click.pass_context
def certificates(context: click.Context, control: str | None, as_json: bool) -> None:
    """List the certificates of listeners, and when they end.

    STATE says whether what the files have is in force, or what they had before; SINCE, since when (UTC). gaiod reads
    files that have changed by itself.
    """
    if context.invoked_subcommand is not None:
        return
    result = _ask(control, "certificates")
    if as_json:
        _print_json(result)
    else:
        click.echo(certificates_text(result["certificates"]))


@certificates.command(name="reload")
@control_option
@json_option
@click.pass_context
def reload_certificates(context: click.Context, control: str | None, as_json: bool) -> None:
    """Read the files of certificates, and of clients' authorities, now.

    Says of each whether it was renewed, is unchanged, or was refused and why. No worker is replaced, and connections
    stay.

    Exit status: 0 what the files have is in force; 75 a reload or an upgrade is under way; 78 some were refused, and
    what was there before stays in force.
    """
    before = context.parent.params if context.parent is not None else {}
    result = _ask(control or before["control"], "renew")
    if as_json or before["as_json"]:
        _print_json(result)
    else:
        click.echo(renewal_text(result["files"]))
    sys.exit(os.EX_CONFIG if any(row["result"] == "refused" for row in result["files"]) else 0)


@click.command()
@control_option
def reload(control: str | None) -> None:
    """Apply the configuration file, and wait until it is served.

    New workers start in any case, and established connections go over to them, where their handler can describe them
    (handover). Of the others, those of listeners that have not changed, in their settings and their handler's code,
    stay with the old workers; the rest may finish, for up to drain_timeout. `gaiod workers restart` ends all of them.

    Exit status: 0 it is served. Otherwise the daemon keeps the configuration that it had: 78 the new one is wrong, 70 a
    worker could not start with it, for example because on_start of a handler raised.
    """
    result = _ask(control, "reload")
    click.echo(f"reloaded: generation {result['generation']}")
    for line in result["changes"] or [NO_CHANGES]:
        click.echo(f"  {line}")
    for listener in result.get("without_servers", ()):
        click.echo(f"warning: no server of {listener} takes clients; gaiod status and the log say why", err=True)


@click.command()
@control_option
def upgrade(control: str | None) -> None:
    """Replace the daemon by the version of gaiod that is installed now.

    No client is refused meanwhile.
    """
    click.echo(f"upgraded: process {_ask(control, 'upgrade')['pid']} serves")


@click.command()
@click.argument("listener")
@control_option
def drain(listener: str, control: str | None) -> None:
    """Stop accepting connections on a listener.

    Its open connections may finish, for up to drain_timeout. The next reload opens the listener again.
    """
    count = _ask(control, "drain", listener=listener)["connections"]
    click.echo(f"draining {listener}: {count} connection{'s' if count != 1 else ''} may finish")


@click.command()
@click.argument("listener")
@click.argument("address", required=False)
@click.argument("action", required=False, type=click.Choice(["drain", "maint", "ready", "weight"]))
@click.argument("weight", required=False, metavar="[N]")
@control_option
def server(listener: str, address: str | None, action: str | None, weight: str | None, control: str | None) -> None:
    """Drain a server of a listener, or bring it back; without ADDRESS, list the servers.

    drain: it gets no new clients, and those that it has stay. maint: that, and it is not checked. ready: it is back.
    weight N: its share of the clients instead of the configured one, 0 to 256; `weight configured` undoes that. What is
    set lasts until the daemon stops, over reloads and upgrades.
    """
    if address is None:
        known = _ask(control, "status")["servers"]
        servers = [row for row in known if row["listener"] == listener]
        if not servers:
            names = ", ".join(dict.fromkeys(row["listener"] for row in known)) or "none"
            click.echo(f"there is no listener {listener} with servers; there is {names}", err=True)
            sys.exit(os.EX_USAGE)
        click.echo(servers_text(servers))
        return
    if action is None or (action == "weight") != (weight is not None):
        raise click.UsageError("write one of: drain, maint, ready, weight N")
    mode = None if action == "weight" else action
    result = _ask(control, "server", listener=listener, server=address, mode=mode, weight=weight)
    own = "" if result["weight"] is None else f", weight {result['weight']}"
    click.echo(f"server {result['server']} of {listener}: {result['mode']}{own}")


@click.command()
@click.argument("network")
@click.option("--for", "time", metavar="TIME", help="For so long, such as 10m or 1d. Default: until gaiod unban.")
@control_option
def ban(network: str, time: str | None, control: str | None) -> None:
    """Close the connections of NETWORK at once, and accept none any more.

    NETWORK is an address or a network, such as 192.0.2.7 or 2001:db8::/32, of at least 8 bits (IPv6: 16). It is banned
    for all listeners, over reloads and upgrades, until its time is over, `gaiod unban`, or the daemon's stop.
    """
    result = _ask(control, "ban", network=network, **{"for": time})
    click.echo(f"banned: {result['network']}{'' if time is None else f' for {time}'}")


@click.command()
@click.argument("network")
@control_option
def unban(network: str, control: str | None) -> None:
    """Accept connections of NETWORK again.

    It is one that `gaiod bans` shows.
    """
    click.echo(f"may connect again: {_ask(control, 'unban', network=network)['network']}")


@click.command()
@control_option
@json_option
def bans(control: str | None, as_json: bool) -> None:
    """List who is banned, and for how long."""
    result = _ask(control, "bans")
    if as_json:
        _print_json(result)
    else:
        click.echo(bans_text(result["bans"]))


@click.command()
@click.argument("topic")
@click.argument("message", required=False)
@click.option(
    "--listener",
    metavar="NAME",
    help="Publish only to subscribers of this listener. Default: all listeners that have the topic.",
)
@control_option
def publish(topic: str, message: str | None, listener: str | None, control: str | None) -> None:
    """Publish MESSAGE to the subscribers of TOPIC.

    Without MESSAGE, or with `-`, publish each line of standard input as soon as it arrives.

    Exit status: 0 each is published; 64 there is no such listener, or none takes messages; 65 a message is refused, too
    long or no UTF-8; 69 the handler could not be loaded, or no daemon runs; 75 not just now.
    """
    count, listeners = 0, {}
    with Conversation(control) as conversation:
        try:
            for each in _lines() if message in (None, "-") else [message]:
                check_message(topic, each)
                result = conversation.ask("publish", topic=topic, message=each, listener=listener)
                listeners.update(dict.fromkeys(result["listeners"]))
                count += 1
        except ControlError as error:
            before = f"line {count + 1}: " if message in (None, "-") else ""
            click.echo(f"{before}{error}", err=True)
            sys.exit(error.status)
    what = f"{count} message{'s' if count != 1 else ''}"
    click.echo(f"published: {what}{' to ' if listeners else ''}{', '.join(listeners)}")


def _lines() -> Iterator[str]:
    """Yield the lines of standard input as they come, without their ends; what is no text as the system's own is."""
    while line := sys.stdin.buffer.readline(MESSAGE_MAX_BYTES + 2):  # one that is longer is refused for its length
        yield os.fsdecode(line.removesuffix(b"\n"))


COMMANDS = (
    status,
    top,
    health,
    connections,
    explain,
    kill,
    workers,
    rebalance,
    certificates,
    reload,
    upgrade,
    drain,
    server,
    ban,
    unban,
    bans,
    publish,
)
