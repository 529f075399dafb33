"""A Dockerfile, read: as much of its grammar as ours uses."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """What is between one FROM and the next.

    Attributes:
        image: what it is made from.
        name: behind AS; empty for the last.
        steps: each instruction with its arguments, in order.
    """

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of each of these instructions."""
        return [arguments for each, arguments in self.steps if each == instruction]

    def one(self, instruction: str) -> str:
        """Return the arguments of the only one."""
        (arguments,) = self.all(instruction)
        return arguments

    def words(self, instruction: str) -> list[str]:
        """Return the words of an instruction in the exec form; fail if it is in the shell's."""
        words = json.loads(self.one(instruction))
        assert isinstance(words, list)
        return words


def stages_of(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            image, _, name = arguments.partition(" AS ")
            stages.append(Stage(image, name))
        else:
            stages[-1].steps.append((instruction, arguments))
    return stages
