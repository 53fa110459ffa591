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

    def struct(self) -> dict[int, Any]:
        """Read a struct: its fields by number."""
        try:
            return self._struct(0)
        except IndexError:
            raise ValueError("its description goes beyond its end") from None

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > MAX_DEPTH:
            raise ValueError("its description is nested too deep")
        # One loop over bytes, without a call for each: a shard has some thousands of these fields.
        data, at = self.data, self.at
        fields: dict[int, Any] = {}
        number = 0
        while head := data[at]:
            # The kind of a field, and how far its number is from the one before.
            kind, at = head & 15, at + 1
            if head > 15:
                number += head >> 4
            else:
                self.at = at
                number, at = self._integer(), self.at
            if kind in (1, 2):
                fields[number] = kind == 1
            elif 4 <= kind <= 6 and data[at] < 128:
                # An integer of one byte, as most are.
                fields[number] = (data[at] >> 1) ^ -(data[at] & 1)
                at += 1
            else:
                self.at = at
                fields[number], at = self._value(kind, depth), self.at
        self.at = at + 1
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
            head = self.data[self.at]
            self.at += 1
            length = head >> 4 if head < 0xF0 else self._varint()
            if length > len(self.data) - self.at:
                raise ValueError("its description goes beyond its end")
            kind = 3 if head & 15 in (1, 2) else head & 15
            return [self._value(kind, depth) for _ in range(length)]
        if kind == 12:
            return self._struct(depth + 1)
        if kind == 3:
            self.at += 1
            return self.data[self.at - 1]
        raise ValueError("its description has a field of an unknown kind")

    def _integer(self) -> int:
        """Read a signed integer, of which small ones of either sign are short (zigzag)."""
        raw = self._varint()
        return (raw >> 1) ^ -(raw & 1)

    def _varint(self) -> int:
        """Read an unsigned integer, seven bits a byte."""
        data, at, value, shift = self.data, self.at, 0, 0
        while (byte := data[at]) > 127:
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise ValueError("its description has an integer of over 64 bits")
        self.at = at + 1
        return value | byte << shift
