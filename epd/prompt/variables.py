"""What a chat template reads: found in its source, nothing is rendered."""

from __future__ import annotations

from jinja2 import TemplateError, meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from epd.errors import ConfigError

_FUNCTIONS = frozenset({*DEFAULT_NAMESPACE, "raise_exception", "strftime_now"})
"""Names that stand for functions in every template."""


class _Generation(Extension):
    """The block around what the assistant said, which says nothing of variables."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def variables_of(source: str) -> frozenset[str]:
    """The names that the template takes from whoever renders it. ConfigError if it is broken."""
    environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols, _Generation])
    try:
        found = meta.find_undeclared_variables(environment.parse(source))
    except TemplateError as error:
        raise ConfigError(f"the chat template is not valid: {error}") from error
    return frozenset(found) - _FUNCTIONS
