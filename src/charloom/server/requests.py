"""Reads and validates the JSON body of a request, within limits of size and time."""

import asyncio
import json
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from charloom.artifacts import with_integers
from charloom.server.limits import Limits
from charloom.server.problems import ApiError

T = TypeVar("T")

_SURROGATE = re.compile("[\\ud800-\\udfff]")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$")
_UNSUPPORTED = ("suffix", "logit_bias", "presence_penalty", "frequency_penalty")
_CHOICES = {"per": "text, line or char", "unknown": "error, skip or replace"}
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `([^`]*)`")
_RENAMED = {"guesses": "top_predictions"}
"""Former names of fields."""
_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


async def body_of(request: Request, kind: type[T], limits: Limits) -> T:
    """Returns a request's body as an object of type `kind`.

    Raises:
        ApiError: the body is not JSON, does not match the type, is too large, or does not arrive in time.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send JSON, with the header Content-Type: application/json.", code="content_type")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise ApiError(
                        413,
                        f"The body is larger than {limits.body:,} bytes. Send a shorter text.",
                        code="body_too_large",
                        headers={"Connection": "close"},
                    )
    except TimeoutError:
        message = f"The body did not arrive within {limits.body_timeout:g} seconds."
        raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ApiError(400, "The client disconnected.", code="disconnected") from None
    await asyncio.sleep(0)  # parsing a large body takes milliseconds: others run before it
    try:
        parsed = _parsed(body, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if (field := _field_of_surrogate(body)) is not None:
            message = f"{field} has half of a surrogate pair, which is not a character. Send whole characters."
            raise ApiError(400, message, param=field, code="invalid_value") from None
        raise ApiError(400, f"The body is not JSON: {error}.", code="invalid_json") from None
    await asyncio.sleep(0)
    return parsed


def _parsed(body: bytearray, kind: type[T]) -> T:
    """Returns the object that a body represents.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is not JSON, or does not match the type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        try:
            value = msgspec.json.decode(body)
        except msgspec.ValidationError:  # a number out of range; the first error names its field
            raise error from None
        # JSON does not distinguish 5.0 from 5, and some clients send only floats.
        return msgspec.convert(with_integers(value), kind)


def _field_of_surrogate(body: bytearray) -> str | None:
    """Returns the field with an unpaired surrogate escape, which msgspec reports as broken JSON; None without one."""
    if b"\\ud" not in body.lower():
        return None
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    return next(
        (name for name, value in fields.items() if _SURROGATE.search(json.dumps(value, ensure_ascii=False))), None
    )


def _invalid(problem: str) -> ApiError:
    """Returns the error for a message of msgspec."""
    found = _PATH.search(problem)
    message = problem[: found.start()] if found else problem
    param = found[1] if found and found[1] else None
    if (named := _FIELD.search(message)) is not None:
        param = named[1]
    if param in _UNSUPPORTED:
        return ApiError(400, f"{param} is not supported. Leave it out.", param=param, code="unsupported")
    if (unknown := _UNKNOWN_FIELD.match(message)) is not None:
        name = unknown[1]
        remedy = f"Use {_RENAMED[name]}" if name in _RENAMED else "Leave it out"
        message = f"{name} is not a field of this request. {remedy}."
        return ApiError(400, message, param=name, code="invalid_value")
    choices = f" Use {_CHOICES[param]}." if param in _CHOICES else ""
    where = f"{param}: " if param and named is None else ""
    return ApiError(400, f"{where}{message}.{choices}", param=param, code="invalid_value")
