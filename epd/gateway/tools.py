"""Functions that a request offers to the model, and calls of earlier turns, as OpenAI has them."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Tag,
    model_validator,
)

from epd.errors import BadRequest
from epd.gateway.fields import Fields
from epd.gateway.parts import OBJECT, STRING
from epd.prompt import ToolCall
from epd.prompt.calls import Signature

MAX_TOOLS = 128
MAX_CALLS = 256
MAX_ID_CHARACTERS = 256
SOME = "<some>"
NAME = r"^[A-Za-z0-9_.-]{1,128}\z"


class Function(BaseModel):
    """What a function is called and takes. The template may show whatever else is said of it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """One tool. `given` is the object as it was sent, which is what templates show."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: Literal["function"]
    function: Function
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ModelWrapValidatorHandler[Tool]) -> Tool:
        tool = handler(value)
        if isinstance(value, dict):
            tool._given = value
        return tool

    @property
    def given(self) -> dict[str, Any]:
        """With the order of its keys, and all of them."""
        return self._given


class FunctionName(Fields):
    """One of the functions that are offered."""

    name: str = Field(pattern=NAME)


class NamedChoice(Fields):
    """This function has to be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Fields):
    """Of the tools that the model is shown, only these may be called, or one of them has to be."""

    mode: Literal["auto", "required"]
    tools: list[NamedChoice] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedChoice(Fields):
    """Some of the functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return SOME if value.get("type") == "allowed_tools" else OBJECT
    return STRING if isinstance(value, str) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(STRING)]
    | Annotated[NamedChoice, Tag(OBJECT)]
    | Annotated[AllowedChoice, Tag(SOME)],
    Discriminator(
        _choice_tag,
        custom_error_type="tool_choice_type",
        custom_error_message="must be none, auto, required, or an object that names functions",
    ),
]


class CalledFunction(Fields):
    """A function and its arguments: an object, written as JSON."""

    name: str = Field(pattern=NAME)
    arguments: str


class Call(Fields):
    """A call of an earlier turn; `index` is what streams have beside it."""

    ignored: ClassVar = frozenset({"index"})

    id: str | None = Field(None, max_length=MAX_ID_CHARACTERS)
    type: Literal["function"] = "function"
    function: CalledFunction

    def to_prompt(self, where: str) -> ToolCall:
        """BadRequest if the arguments are no object. Without any there may be no text at all."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            where = f"{where}.function.arguments"
            raise BadRequest(f"{where}: must be a JSON object, written as a string", param=where)
        return ToolCall(id=self.id, name=self.function.name, arguments=arguments)


Choice = str | NamedChoice | AllowedChoice


class Offer:
    """The tools of one request and what is to become of them. BadRequest where that cannot be.

    `shown`: what the template shows. `functions`: those that may be called; with `must_call` one
    of them has to be. Nothing of all that where nothing may be called. `binds`: not every text is
    an answer.
    """

    def __init__(self, tools: list[Tool] | None, choice: Choice | None) -> None:
        for i, tool in enumerate(tools or ()):
            _check_parameters(tool.function, f"tools[{i}].function.parameters")
        every = {tool.function.name: tool.function for tool in tools or ()}
        if len(every) < len(tools or ()):
            raise BadRequest("tools: two functions have one name", param="tools")
        self.must_call = _must_call(choice)
        wanted = _named(choice)
        if (self.must_call or wanted) and not every:
            raise BadRequest("tool_choice needs tools", param="tool_choice")
        for name, where in wanted.items():
            if name not in every:
                raise BadRequest(f"{where}: none of the tools is called that", param=where)
        names = () if choice == "none" else [name for name in every if name in (wanted or every)]
        called = [every[name] for name in names]
        self.shown = [tool.given for tool in tools or ()] if called else []
        self.functions = [
            Signature(name=one.name, parameters=one.parameters, strict=bool(one.strict))
            for one in called
        ]
        # With all functions allowed there is nothing that a free answer could do wrong.
        forbids = 0 < len(called) < len(every)
        self.binds = self.must_call or forbids or any(one.strict for one in self.functions)


def _must_call(choice: Choice | None) -> bool:
    if isinstance(choice, AllowedChoice):
        return choice.allowed_tools.mode == "required"
    return isinstance(choice, NamedChoice) or choice == "required"


def _named(choice: Choice | None) -> dict[str, str]:
    """The functions that are named, and the fields that do."""
    if isinstance(choice, NamedChoice):
        return {choice.function.name: "tool_choice.function.name"}
    if not isinstance(choice, AllowedChoice):
        return {}
    return {
        one.function.name: f"tool_choice.allowed_tools.tools[{i}].function.name"
        for i, one in enumerate(choice.allowed_tools.tools)
    }


def _check_parameters(function: Function, where: str) -> None:
    """Arguments are an object, by name."""
    if (function.parameters or {}).get("type", "object") != "object":
        raise BadRequest(f"{where}.type: must be object", param=f"{where}.type")
