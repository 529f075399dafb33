"""A loader of handlers without any plugin machinery, and the options that tests need."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from gaiod.handlers.push import Push

from gaiod.handler.handler import Handler, Source
from gaiod.handler.option_types import Check, Duration, Size, Unit
from gaiod.plugins import HandlerLoadError


@dataclass
class Server:
    """A nested dataclass with an opinion of its own."""

    address: str
    weight: int = 1

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError("weight is negative; write 0 or more")


def _topic(text: str) -> None:
    if not text.islower():
        raise ValueError(f"{text} has capitals; write {text.lower()}")


def _ascending(numbers: list[int]) -> None:
    if numbers != sorted(numbers):
        raise ValueError(f"do not ascend; write {sorted(numbers)}")
    if numbers == [13]:
        raise KeyError("13")


@dataclass
class KitOptions:
    """One option of each kind."""

    name: str
    count: int = 1
    share: float = 0.5
    loud: bool = False
    mode: Literal["fast", "slow"] = "fast"
    retries: Literal[0, 1, 2] = 0
    wait: Duration = 1.0
    grace: Annotated[float, Unit("duration", minimum=0.1, maximum=60.0)] = 5.0
    buffer: Size = 65536
    packet: Annotated[int, Unit("size", minimum=64, maximum=65536)] = 1500
    patience: Duration | None = None
    first: Server | None = None
    servers: list[Server] = field(default_factory=list)
    ports: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    pair: tuple[int, str] = (1, "a")
    tries: Annotated[int, Unit("count", minimum=1, maximum=10)] = 3
    topic: Annotated[str, Check(_topic)] = "news"
    upstreams: list[Annotated[str, Check(_topic)] | Server] = field(default_factory=list)
    when: Literal["never"] | Duration | None = None
    several: Annotated[list[int], Check(_ascending)] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("count brings bad luck; write another number")
        if self.count == 14:
            raise KeyError("count")


class Echo(Handler):
    """A handler without options."""


class Kit(Handler):
    """A handler with options, some of which are servers."""

    Options = KitOptions

    @classmethod
    def servers_of(cls, options: KitOptions) -> tuple[str, ...]:
        for server in options.servers:
            if server.weight == 13:
                raise ValueError(f"server {server.address} brings bad luck; give it another weight")
            if server.weight == 14:
                raise KeyError(server.address)
        return tuple(server.address for server in options.servers)

    @classmethod
    def buffer_limit_of(cls, options: KitOptions) -> int:
        return options.buffer


class Named(Source):
    """A source that has a name, and nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass
class FedOptions:
    """The names of sources."""

    sources: list[str] = field(default_factory=list)


class Sourced(Handler):
    """A handler with sources, whose messages nobody takes."""

    Options = FedOptions

    @classmethod
    def sources_of(cls, options: FedOptions) -> list[Source]:
        if "unlucky" in options.sources:
            raise ValueError("source unlucky brings bad luck; leave it out")
        return [Named(name) for name in options.sources]


class Fed(Sourced):
    """A handler that takes messages."""

    def on_message(self, topic: str, data: bytes) -> None:
        """Take one."""


class Careless(Handler):
    """A handler whose author forgot @dataclass."""

    class Options:
        """No dataclass."""


HANDLERS: dict[str, type[Handler]] = {
    "echo": Echo,
    "kit": Kit,
    "fed": Fed,
    "sourced": Sourced,
    "careless": Careless,
}


def load_fake_handler(reference: str) -> type[Handler]:
    """Find one of the handlers above, or push, whose mistakes are the richest; any file is echo."""
    if reference.startswith("/"):
        return Echo
    if reference == "push":
        push: type[Handler] = Push
        return push
    if reference not in HANDLERS:
        raise HandlerLoadError(f"no handler is called {reference}; write one of {', '.join(HANDLERS)}")
    return HANDLERS[reference]


@pytest.fixture
def load_handler() -> Callable[[str], type[Handler]]:
    """Return the loader, for `load(path, load_handler=load_handler)`."""
    return load_fake_handler
