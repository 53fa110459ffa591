"""Fingerprints are the same everywhere and never collide by accident."""

import hashlib
import subprocess
import sys

from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.types import Draw


def test_a_fingerprint_is_the_sha256_of_canonical_json() -> None:
    text = '[0,"val/1.jpg",{"a":1,"b":[2.5,null,true]}]'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert hexdigest(0, "val/1.jpg", {"b": [2.5, None, True], "a": 1}) == expected
    assert fingerprint(0, "val/1.jpg", {"b": [2.5, None, True], "a": 1}) == int(expected, 16) >> 193


def test_boundaries_between_parts_count() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(1, 2) != fingerprint(12)
    assert fingerprint("1") != fingerprint(1)


def test_seeds_fit_a_signed_64_bit_column() -> None:
    assert all(0 <= fingerprint("x", i) < 2**63 for i in range(1000))


def test_a_draw_s_seed_is_that_of_another_process() -> None:
    code = "from pulse_audit.types import Draw; print(Draw('val/ü.jpg', 'clean', 8, 3).seed(7))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(printed.stdout) == Draw("val/ü.jpg", "clean", 8, 3).seed(7)


def test_every_part_of_a_draw_changes_its_seed() -> None:
    draws = [
        Draw("a", "clean", 8, 0), Draw("b", "clean", 8, 0), Draw("a", "jpeg:50", 8, 0),
        Draw("a", "clean", 4, 0), Draw("a", "clean", 8, 1),
    ]  # fmt: skip
    assert len({draw.seed(seed) for draw in draws for seed in (0, 1)}) == 10
