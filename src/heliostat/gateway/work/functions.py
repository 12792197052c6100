"""Functions that the owner has published: what callers may call by name, and what they must give.

The rule needs nothing of ours in the owner's module. What `__all__` names is published: plain functions whose
parameters all have types. `NEEDS` may say what one of them takes, under its name:

    __all__ = ["segment"]
    NEEDS = {"segment": {"gpus": 1, "timeout_s": 900}}

    def segment(image: np.ndarray, diameter: float = 30.0) -> np.ndarray:
        "Return a mask for each cell."

Arguments are checked against the types before anything is launched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import typing_extensions
from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema, to_jsonable_python

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.port import Needs, Signature
from heliostat.ports.errors import ConfigError

MODULE_PREFIX = "heliostat_published_"
PROBLEMS_TOLD = 5
KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class Published:
    """One function, as callers see it and as it is run."""

    signature: Signature
    function: Callable[..., Any]
    arguments: TypeAdapter[dict[str, Any]]

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the function's types want them; CallError(INVALID) says what is wrong."""
        try:
            return self.arguments.validate_python(dict(arguments))
        except ValidationError as error:
            raise CallError(Code.INVALID, f"{self.signature.name}: {_problems(error)}") from error


def load(where: str) -> tuple[ModuleType, dict[str, Published]]:
    """Import the module or the `.py` file and return it with what it publishes.

    Raises ConfigError with everything that is wrong. Its code runs: it is the owner's own.
    """
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise ConfigError([f"{where} can't be imported: {type(error).__name__}: {error}"]) from error
    return module, published(module, where)


def published(module: ModuleType, where: str) -> dict[str, Published]:
    """Return what the module publishes, by name; raises ConfigError with everything that is wrong."""
    names = getattr(module, "__all__", None)
    if not isinstance(names, list | tuple):
        raise ConfigError([f"{where}: `__all__` has to list the functions that callers may call"])
    asked = getattr(module, "NEEDS", {})
    problems = [
        f"{where}: NEEDS names {name}, which `__all__` does not" for name in asked if name not in names
    ]
    found: dict[str, Published] = {}
    for name in names:
        try:
            found[name] = _published(name, getattr(module, name, None), asked.get(name, {}))
        except (TypeError, ValueError, NameError, PydanticUserError) as error:
            problems.append(f"{where}: {name}: {error}")
    if problems:
        raise ConfigError(problems)
    return found


class _Array:
    """numpy arrays among the types: pydantic knows none."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        whole = core_schema.is_instance_schema(np.ndarray, cls_repr="numpy.ndarray")
        return core_schema.no_info_before_validator_function(_as_array, whole)

    @staticmethod
    def __get_pydantic_json_schema__(schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"description": "a numpy array, or nested lists of numbers"}


def _as_array(value: Any) -> Any:
    """Take lists of numbers for an array: JSON has no other way to write one."""
    if not isinstance(value, list):
        return value
    try:
        found = np.asarray(value)
    except ValueError:
        return value
    return found if found.dtype.kind in "biuf" else value


def _from_file(path: Path) -> ModuleType:
    name = MODULE_PREFIX + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Ray asks for it by its name when it sends the functions themselves.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _published(name: str, function: Any, needs: Mapping[str, Any]) -> Published:
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or _is_generator(function):
        raise TypeError("only plain functions can be published")
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    _check_parameters(list(parameters), hints)
    adapter = _adapter({one.name: one for one in parameters}, hints)
    returns = hints.get("return", Any)
    signature = Signature(
        name=name,
        doc=inspect.getdoc(function) or "",
        parameters=_schema(adapter, list(parameters)),
        returns="Any" if returns is Any else inspect.formatannotation(returns),
        needs=_needs(needs),
    )
    return Published(signature, function, adapter)


def _is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _check_parameters(parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> None:
    for one in parameters:
        if one.kind not in KINDS:
            raise TypeError(f"{one} can't be given by name: every parameter needs a name of its own")
        if one.name not in hints:
            raise TypeError(f"the parameter {one.name} has no type")


def _needs(given: Mapping[str, Any]) -> Needs:
    """Return what `NEEDS` says of a function; ValueError names what is unknown or wrong."""
    known = {field.name for field in dataclasses.fields(Needs)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"NEEDS knows {', '.join(sorted(known))}, not {', '.join(unknown)}")
    needs = TypeAdapter(Needs).validate_python(dict(given))
    if needs.cpus < 0 or needs.gpus < 0 or not (needs.cpus or needs.gpus) or needs.timeout_s <= 0:
        raise ValueError("NEEDS: some of cpus or gpus is needed, and time; none is below 0")
    return needs


def _adapter(
    parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> TypeAdapter[dict[str, Any]]:
    fields = {
        name: hint if one.default is one.empty else typing_extensions.NotRequired[hint]
        for name, one in parameters.items()
        for hint in [_with_arrays(hints[name])]
    }
    # Its fields are known only now, which no checker of types can follow.
    make: Any = typing_extensions.TypedDict
    kind = make("Arguments", fields)
    kind.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(kind)


def _with_arrays(hint: Any) -> Any:
    """Return the type with numpy's arrays as pydantic can check them, at any depth."""
    origin = typing.get_origin(hint)
    if hint is np.ndarray or origin is np.ndarray:
        return typing.Annotated[Any, _Array]
    arguments = typing.get_args(hint)
    if not arguments or origin in {typing.Literal, typing.Annotated}:
        return hint
    inner = tuple(_with_arrays(one) for one in arguments)
    if inner == arguments:
        return hint
    if origin in {typing.Union, types.UnionType}:
        return functools.reduce(operator.or_, inner)
    return origin[inner]


def _schema(adapter: TypeAdapter[dict[str, Any]], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """Return the JSON schema of the arguments, with the defaults that JSON can tell."""
    schema = adapter.json_schema()
    schema.pop("title", None)
    for one in parameters:
        if one.default is one.empty:
            continue
        with contextlib.suppress(PydanticSerializationError):
            schema["properties"][one.name]["default"] = to_jsonable_python(one.default)
    return schema


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg'][:1].lower()}{one['msg'][1:]}" for one in found]
    more = len(lines) - PROBLEMS_TOLD
    return "; ".join(lines[:PROBLEMS_TOLD]) + (f"; and {more} more" if more > 0 else "")
