"""The arguments of the services' functions: read from what a caller sends, and described for who asks.

A wrong argument is a sentence that names it, never a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.payload import VALUES_MAX

ARGUMENTS_MAX = 20
"""More than any function has: what strangers send is looked at no further than needed to refuse it."""

WORDS_MAX = 5
"""Wrong arguments that are named in one answer."""

RESOURCES_MAX = 10
"""Resources that are looked at one by one, to name those that there are not."""

LOOK_S = 20.0
"""How long a look waits for news, unless it says otherwise."""

Encoding = Literal["plain", "json"]


def _few(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) > RESOURCES_MAX:
        raise ValueError("there are CPU, GPU and memory only")
    return value


Kind = Literal["CPU", "GPU", "memory"]
Resources = Annotated[dict[Kind, Annotated[float, Field(ge=0, allow_inf_nan=False)]], BeforeValidator(_few)]
Wanted = Annotated[Resources | None, Field(description="what it needs of a node: CPU, GPU, memory (bytes)")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TimeoutS = Annotated[Seconds | None, Field(description="how long it may run, once it has a node")]
Offset = Annotated[int, Field(ge=0, description="the offset that the last look returned")]
WaitS = Annotated[float, Field(ge=0, allow_inf_nan=False, description="how long to wait for news")]
JsonOrNot = Annotated[Encoding, Field(description="`json`: bytes and arrays as JSON objects, for plain HTTP")]


class Arguments(BaseModel):
    """What a function takes; `in_order` may be given without their names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    in_order: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def schema_of(cls) -> dict[str, Any]:
        """Return the parameters' JSON schema."""
        schema = cls.model_json_schema()
        return {key: schema[key] for key in ("type", "properties", "required") if key in schema}

    @classmethod
    def bind(cls, positional: Sequence[Any], named: Mapping[str, Any]) -> Self:
        """Return what was given, checked; raises `CallError` with all that is wrong.

        Over HTTP a list of arguments comes as "0", "1", …
        """
        if len(positional) + len(named) > ARGUMENTS_MAX:
            raise CallError(Code.INVALID, f"there are more than {ARGUMENTS_MAX} arguments")
        given = {**{str(at): value for at, value in enumerate(positional)}, **named}
        places = {str(at): name for at, name in enumerate(cls.in_order)}
        by_name: dict[str, Any] = {}
        for key, value in given.items():
            name = places.get(key, key)
            if name in by_name:
                raise CallError(Code.INVALID, f"{name} is given twice")
            if isinstance(value, Sized) and not isinstance(value, str) and len(value) > VALUES_MAX:
                raise CallError(Code.TOO_LARGE, f"{name} holds more than {VALUES_MAX} values")
            by_name[name] = value
        try:
            return cls.model_validate(by_name)
        except ValidationError as error:
            raise CallError(Code.INVALID, cls._words(error)) from error

    @classmethod
    def _words(cls, error: ValidationError) -> str:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        parts = [_word(one["loc"], one["type"], one["msg"]) for one in wrong[:WORDS_MAX]]
        return f"{'; '.join(parts)} (arguments: {', '.join(cls.model_fields) or 'none'})"


def _word(place: tuple[int | str, ...], kind: str, message: str) -> str:
    words = {"extra_forbidden": "there is no such argument", "missing": "is required"}
    return f"{'.'.join(map(str, place))}: {words.get(kind, message[:1].lower() + message[1:])}"


class Nothing(Arguments):
    """For functions that take no arguments."""


class Needing(Arguments):
    """What a call needs, and how its caller hears of it."""

    resources: Wanted = None
    timeout_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="how long it may run, once it has a node"
    )
    stream: bool = Field(False, description="get a stream of progress that ends with the answer (RPC only)")
    wait: bool = Field(True, description="false: return at once; `progress` tells the rest")
    encoding: JsonOrNot = "plain"


class RunPython(Needing):
    in_order = ("script", "inputs")
    script: str = Field(description="Python; its value is what it leaves in `result`")
    inputs: dict[str, Any] = Field({}, description="the script's variables")
    runtime_env: dict[str, Any] | None = Field(None, description="Ray's, if the owner allows it")


class CallFunction(Needing):
    in_order = ("function", "arguments")
    function: str = Field(description="its name")
    arguments: dict[str, Any] = Field({}, description="its arguments by name")


class Progress(Arguments):
    in_order = ("call_id", "offset")
    call_id: str = Field(description="which call")
    offset: Offset = 0
    wait_s: WaitS = LOOK_S
    encoding: JsonOrNot = "plain"


class StopCall(Arguments):
    in_order = ("call_id",)
    call_id: str = Field(description="which call")


class Submit(Arguments):
    in_order = ("entrypoint", "runtime_env")
    entrypoint: str = Field(description="the command")
    runtime_env: dict[str, Any] | None = Field(None, description="Ray's, if the owner allows it")
    resources: Wanted = None
    timeout_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="how long it may run, once it has a node"
    )


class OneJob(Arguments):
    in_order = ("job_id",)
    job_id: str = Field(description="which job")


class JobLogs(OneJob):
    stream: bool = Field(False, description="get a stream of text (RPC only)")
    offset: Offset = 0
    wait_s: WaitS = 0.0
