"""Responses out of files, without evaluating what files say."""

from __future__ import annotations

import ast
from typing import Any

from ddf_tomo._checks import FileFormatError, message
from ddf_tomo.operators import responses

RESPONSES = (
    "IsotropicResponse",
    "SaxsResponse",
    "SecondMomentResponse",
    "DirectionalVisibilityResponse",
    "VisibilityResponse",
    "RankTwoResponse",
    "RankTwoSaxsResponse",
)


def response_from_repr(text: str) -> Any:
    """A response from its ``repr``; nothing but the package's responses with plain numbers is ever evaluated.

    Raises
    ------
    FileFormatError
        If the text is anything else.

    Examples
    --------
    >>> response_from_repr("SecondMomentResponse()")
    SecondMomentResponse()
    """
    expected = "one of the package's responses with plain numbers"
    try:
        call = ast.parse(str(text), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in RESPONSES:
            raise FileFormatError(message("response", expected, repr(text)))
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return getattr(responses, call.func.id)(*positional, **named)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise FileFormatError(message("response", expected, f"{str(text)[:200]!r} ({error})")) from error
