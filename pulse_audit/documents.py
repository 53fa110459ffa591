"""YAML and JSON from outside: read within limits, and every failure is one line.

Limits are on bytes, depth, values and digits, and hold before anything is built. In YAML an alias
counts as all the values that it repeats; tags and keys that occur twice are refused, and dates stay
text.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from pulse_audit.types import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

#: Largest documents in bytes: written by a person, and written by a run.
MAX_DOCUMENT, MAX_RECORD = 2**20, 2**28
#: Levels of nesting, and digits of an integer.
MAX_DEPTH, MAX_DIGITS = 32, 20
#: Values of a document, aliases spelled out.
MAX_YAML_VALUES, MAX_JSON_VALUES = 100_000, 10_000_000

# The C parser is ten times faster; both read the same events without recursion.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class PlainLoader(_Base):  # type: ignore[misc]
    """Builds plain values: numbers of bounded size, and no dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def integer(self, node: yaml.ScalarNode) -> Any:
        """Build an integer."""
        _check_digits(node.value)
        return self.construct_yaml_int(node)

    def finite(self, node: yaml.ScalarNode) -> float:
        """Build a number with a fraction."""
        return _finite(self.construct_yaml_float(node))


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.integer)
PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader.finite)


def read_file(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InputError
        If it cannot be read, is longer, or is a device or a pipe.
    """
    try:
        # A pipe without a writer would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{path}: cannot be read (it is no regular file)")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error})") from None
    if len(data) > limit:
        raise InputError(f"{path}: is longer than {limit:,} bytes")
    return data


def read_yaml(path: Path) -> Any:
    """Read a YAML file; `FileNotFoundError` and `InputError` as `read_file` and `parse_yaml`."""
    return parse_yaml(read_file(path), path)


def read_json(path: Path, limit: int = MAX_RECORD) -> Any:
    """Read a JSON file; `FileNotFoundError` and `InputError` as `read_file` and `parse_json`."""
    return parse_json(read_file(path, limit), path)


def parse_yaml(data: bytes, where: Path | str) -> Any:
    """Build the plain values of one YAML document.

    Parameters
    ----------
    data : bytes
        UTF-8, with or without a byte order mark.
    where : Path or str
        How messages name the document.

    Raises
    ------
    InputError
        If it is not YAML, or leaves a limit.
    """
    try:
        text = data.decode("utf-8-sig")
        # The events come first: they are bounded by the text, what they build is not.
        _check_events(text)
        return yaml.load(text, Loader=PlainLoader)
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8 text; save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: is not valid YAML: {reason}") from None


def _check_events(text: str) -> None:
    """Raise ValueError where a YAML document leaves a limit, without building it."""
    values = 0
    #: For each open collection: its anchor, and the values before it.
    open_collections: list[tuple[str | None, int]] = []
    #: Values below each anchor that is complete.
    sizes: dict[str, int] = {}
    #: For each open collection: keys of a mapping so far, and entries, keys and values in turn.
    keys: list[tuple[set[str] | None, int]] = []
    for event in yaml.parse(text, Loader=_Base):
        line = f"line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if isinstance(event, yaml.NodeEvent) and keys:
            seen, entries = keys.pop()
            keys.append((seen, entries + 1))
            if seen is not None and entries % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                # the last of two would count, whatever a reader of the first believes
                if event.value in seen:
                    raise ValueError(f"{line}: the key {event.value[:40]!r} occurs twice")
                seen.add(event.value)
        if isinstance(event, yaml.AliasEvent):
            # An unknown name, or a collection that would hold itself.
            if event.anchor not in sizes:
                raise ValueError(f"{line}: *{event.anchor} repeats nothing that is complete")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            if event.tag is not None:  # type: ignore[attr-defined]
                raise ValueError(f"{line}: tags such as {event.tag[:40]!r} are not allowed")  # type: ignore[attr-defined]
            values += 1
            if not isinstance(event, yaml.ScalarEvent):
                open_collections.append((event.anchor, values - 1))
                keys.append((set() if isinstance(event, yaml.MappingStartEvent) else None, 0))
            elif "\0" in event.value:
                raise ValueError(f"{line}: text with a NUL byte")
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            keys.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        if len(open_collections) > MAX_DEPTH:
            raise ValueError(f"{line}: nested more than {MAX_DEPTH} deep")
        if values > MAX_YAML_VALUES:
            raise ValueError(f"{line}: more than {MAX_YAML_VALUES:,} values")


def parse_json(data: bytes, where: Path | str) -> Any:
    """Build the values of a JSON document; parameters and errors as `parse_yaml`."""
    try:
        # Every value but the first follows one of these; those in texts only make it stricter.
        if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
            raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
        content = json.loads(
            data.decode("utf-8-sig"),
            parse_int=lambda text: int(_check_digits(text)),
            parse_float=lambda text: _finite(float(text)),
            parse_constant=lambda text: _finite(float(text)),
        )
        _check_values(content, texts=b"\\u" in data)
        return content
    except RecursionError:
        raise InputError(f"{where}: unreadable (nested more than {MAX_DEPTH} deep)") from None
    except ValueError as error:
        raise InputError(f"{where}: unreadable ({' '.join(str(error).split())[:200]})") from None


def checked(model: type[Model], content: Any, where: Path | str) -> Model:
    """Return the content of a document as a model; `InputError` names the first key at fault.

    Values are left out of the message: an alias bomb in YAML would be written out there.
    """
    from pydantic import ValidationError

    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{where}: holds no keys with values")
    try:
        return model(**content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:80]
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {f'key {key!r}: ' if key else ''}{reason}") from None


def _check_values(content: Any, texts: bool) -> None:
    """Raise ValueError where values are nested too deep or hold text that cannot be written.

    ``texts`` tells whether the document holds escapes, without which no text can be at fault.
    """
    # Level by level, in place of recursion.
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper += value.values()
                deeper += value if texts else ()
            elif isinstance(value, list):
                deeper += value
            elif texts and isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
                raise ValueError(f"text with a NUL byte or half a character: {value[:40]!r}")
        level = deeper
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _is_unicode(text: str) -> bool:
    """Whether a text holds whole characters only, no lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_digits(text: str) -> str:
    """Return the text of an integer unless it is too long."""
    if len(text.lstrip("+-")) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
    return text


def _finite(number: float) -> float:
    """Return a number unless it is infinite or not a number."""
    if not math.isfinite(number):
        raise ValueError("a number that is infinite or not a number")
    return number
