"""deploy/README.md names nothing that does not exist: no command, no metric, no file."""

import re
from pathlib import Path

import click
import pytest
from core.support.pki import authority
from core.support.processes import REPOSITORY
from core.support.tls import certificate

from gaiod.cli import main
from gaiod.config import loads
from gaiod.stats.cells import STAY_REASONS

RUNBOOK = REPOSITORY / "deploy" / "README.md"
TEXT = RUNBOOK.read_text()

METRICS = sorted(set(re.findall(r"\b((?:gaiod|python|process)_[a-z_]+)\b", TEXT)))
LINKS = re.findall(r"\]\(([^)]+)\)", TEXT)


def code() -> list[str]:
    """Return what is set as code: in backticks, and in blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    rest = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    return [*re.findall(r"`([^`\n]+)`", rest), *(line for block in blocks for line in block.splitlines())]


def commands() -> set[str]:
    """Return each command of gaiod that the runbook runs, up to a comment."""
    lines = [line.partition("#")[0].strip() for line in code()]
    return {found.group(0) for line in lines if (found := re.search(r"(?:^|/|-- |\| )gaiod [a-z].*", line))}


@pytest.mark.parametrize("command", sorted(commands()))
def test_command_exists_with_its_options(command: str) -> None:
    words = command.partition("gaiod ")[2].split()
    found: click.Command = main
    while isinstance(found, click.Group) and (words or not found.invoke_without_command):
        word = words.pop(0)
        assert word in found.commands, command
        found = found.commands[word]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-") and word != "-"} <= options


def test_runbook_has_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("metric", METRICS)
def test_metric_exists(metric: str) -> None:
    documented = (RUNBOOK.parent / "METRICS.md").read_text()
    assert f"`{re.sub('_bucket$', '', metric)}`" in documented


RECIPES = re.findall(
    r"```yaml\n(.*?)```", TEXT.partition("### Three recipes for TLS")[2].partition("\n## ")[0], re.DOTALL
)


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_recipe_for_tls_is_a_configuration(recipe: str, tmp_path: Path) -> None:
    """With files in the places of those that it names."""
    made, own = certificate(), authority()
    texts = {"crl": own.revocations(), "key": made.key, "ca": own.certificate, "chain": made.chain}

    def written(found: re.Match[str]) -> str:
        key = found.group(1)
        file = tmp_path / f"{key}.pem"
        file.write_text(texts[key])
        return f"{key}: {file}"

    settings = loads(re.sub(r"\b(chain|key|ca|crl): (/etc/[^\s,}]+)", written, recipe))
    assert settings.listeners
    assert "/etc/" not in str(settings)


def test_there_are_three_recipes_of_which_one_has_two_ends() -> None:
    assert len(RECIPES) == 4


def test_each_reason_why_a_connection_is_not_handed_over_has_its_remedy() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| .+ \| .+ \|$", TEXT.partition("## What handover does when")[2], re.MULTILINE)
    assert sorted(rows) == sorted(STAY_REASONS)


def test_statuses_of_publish_are_those_that_its_help_tells() -> None:
    table = TEXT.partition("| exit status |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE))
    told = (main.commands["publish"].help or "").partition("Exit status:")[2]
    help_says = set(re.findall(r"\b(\d\d)\b", told))
    assert help_says == {status for status, text in rows.items() if "`publish`" in text} | {"75"}
    assert "no handler takes messages" in rows["64"]


@pytest.mark.parametrize("link", LINKS)
def test_link_leads_somewhere(link: str) -> None:
    path, _, heading = link.partition("#")
    target = RUNBOOK.parent / path if path else RUNBOOK
    assert target.exists()
    if heading:
        assert heading in headings(target)


def headings(path: Path) -> set[str]:
    """Return the anchors of a file's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
