"""Thrift's compact protocol, in which Parquet files describe themselves: reading a struct.

Source: Apache Thrift, ``doc/specs/thrift-compact-protocol.md``.
"""

from __future__ import annotations

from typing import Any

#: Levels of nesting; the description of a Parquet file has six.
MAX_DEPTH = 10


class ThriftReader:
    """Reads values from ``data``, beginning at ``at``; ValueError where there are none.

    Attributes
    ----------
    at : int
        Where the next value begins.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct: its fields by number."""
        fields: dict[int, Any] = {}
        number = 0
        if depth > MAX_DEPTH:
            raise ValueError("its description is nested too deep")
        while head := self._byte():
            # The kind of a field, and how far its number is from the one before.
            kind, step = head & 15, head >> 4
            number = number + step if step else self._integer()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        """Read a value of a kind; maps and fractions are of no use here."""
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 8:
            # Bytes, such as a name.
            length = self._varint()
            start, self.at = self.at, self.at + length
            if self.at > len(self.data):
                raise ValueError("its description goes beyond its end")
            return self.data[start : self.at]
        if kind == 9:
            # Every value of a list has a byte at least.
            head = self._byte()
            length = head >> 4 if head < 0xF0 else self._varint()
            if length > len(self.data) - self.at:
                raise ValueError("its description goes beyond its end")
            kind = 3 if head & 15 in (1, 2) else head & 15
            return [self._value(kind, depth) for _ in range(length)]
        if kind == 12:
            return self.struct(depth + 1)
        if kind == 3:
            return self._byte()
        raise ValueError("its description has a field of an unknown kind")

    def _byte(self) -> int:
        try:
            byte = self.data[self.at]
        except IndexError:
            raise ValueError("its description goes beyond its end") from None
        self.at += 1
        return byte

    def _integer(self) -> int:
        """Read a signed integer, of which small ones of either sign are short (zigzag)."""
        raw = self._varint()
        return (raw >> 1) ^ -(raw & 1)

    def _varint(self) -> int:
        """Read an unsigned integer, seven bits a byte."""
        # Most have one byte.
        value = self._byte()
        if value < 128:
            return value
        value, shift = value & 127, 7
        while (byte := self._byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("its description has an integer of over 64 bits")
        return value | byte << shift
