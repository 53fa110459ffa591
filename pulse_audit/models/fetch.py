"""Fetching weights: licence first, then a resumable download, then the checks, then the name.

A file appears under its own name only after its size and SHA-256 were checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from pulse_audit.files import file_sha256
from pulse_audit.models import cache, transfer
from pulse_audit.models.registry import WeightCard
from pulse_audit.models.transfer import Progress
from pulse_audit.types import InputError

MIRROR = "PULSE_AUDIT_MIRROR"


def fetch(
    card: WeightCard,
    accept: Callable[[str], bool],
    progress: Progress = lambda done, total, restored: None,
) -> Path:
    """Bring the file of a card into the cache, unless it is there.

    Parameters
    ----------
    card : WeightCard
        What to fetch.
    accept : callable
        ``accept(terms) -> bool``: asked once for each licence that has to be accepted; the answer
        is remembered on this machine.
    progress : callable
        ``progress(done, total, restored)`` in bytes.

    Returns
    -------
    Path
        The file, checked.

    Raises
    ------
    InputError
        One line: the licence was not accepted; the file has to be fetched by hand; the server, the
        disk or the file's content does not allow it. The same call resumes a download that was cut.
    """
    with cache.held(card):
        path = cache.located(card.name)
        if path is not None:
            return path
        if _placed_by_hand(card):
            _agree(card, accept)
            return _adopt(card)
        url = source_of(card)
        if url is None:
            raise InputError(by_hand(card))
        _agree(card, accept)
        return _bring(card, url, progress)


def terms(card: WeightCard) -> str:
    """Return a card's licence and what it was trained on, in one line."""
    licence = card.licence
    doubt = "" if licence.confirmed else "; not stated for this very file"
    where = f", {licence.url}" if licence.url else ""
    return (
        f"{card.name}: licence {licence.name}{where} ({licence.note}{doubt}); "
        f"trained on {card.trained_on}"
    )


def doubt(card: WeightCard) -> str | None:
    """Say why the SHA-256 of a fetched file proves little, or None where it is a confirmed one."""
    known = cache.seen(card)
    if known is None or card.sha256_status == "confirmed":
        return None
    if card.sha256 is None:
        return (
            f"{card.name}: nobody has published a SHA-256; {known.sha256} is recorded, and later "
            "downloads have to match it"
        )
    if known.sha256 == card.sha256:
        return f"{card.name}: SHA-256 as claimed by {card.sha256_source}"
    return (
        f"{card.name}: SHA-256 {known.sha256} is NOT the {card.sha256} claimed by "
        f"{card.sha256_source}; recorded as it is, trust it accordingly"
    )


def by_hand(card: WeightCard) -> str:
    """Say how to come by a file that has no direct link."""
    return (
        f"{card.name}: {card.obtain}; open {card.page} in a browser, save {card.file_name} as "
        f"{cache.path_of(card)} (or in the folder of {MIRROR}) and run the same command again"
    )


def source_of(card: WeightCard) -> str | None:
    """Address of a card's file: in PULSE_AUDIT_MIRROR where that is set, else its own.

    Raises
    ------
    InputError
        If the mirror is neither an http, https or file address nor a folder.
    """
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return card.url
    if "://" not in mirror:
        return (Path(mirror).expanduser().absolute() / card.file_name).as_uri()
    if urlsplit(mirror).scheme not in ("http", "https", "file"):
        raise InputError(f"{MIRROR}={mirror}: give a folder or an http, https or file address")
    return f"{mirror.rstrip('/')}/{quote(card.file_name)}"


def _agree(card: WeightCard, accept: Callable[[str], bool]) -> None:
    if cache.accepted(card.licence):
        return
    if not accept(terms(card)):
        raise InputError(
            f"{card.name}: not fetched, its licence was not accepted ({card.licence.name}, "
            f"{card.licence.url})"
        )
    try:
        cache.record_acceptance(card.licence)
    except OSError as error:
        raise cache.unwritable(error) from None


def _placed_by_hand(card: WeightCard) -> bool:
    """Whether a file lies in its place that no download of ours put there."""
    unknown = cache.seen(card) is None or source_of(card) is None
    return unknown and cache.path_of(card).is_file()


def _adopt(card: WeightCard) -> Path:
    path = cache.path_of(card)
    try:
        digest = _checked(card, path, str(path))
        cache.record(card, digest, path.as_uri())
    except OSError as error:
        raise InputError(f"{path}: cannot be used ({error.strerror})") from None
    return path


def _bring(card: WeightCard, url: str, progress: Progress) -> Path:
    path = cache.path_of(card)
    part = path.with_name(f"{path.name}.part")
    if urlsplit(url).scheme == "file":
        transfer.copy(Path(url2pathname(urlsplit(url).path)), part, progress)
    else:
        transfer.download(url, part, card.size, progress)
    try:
        digest = _checked(card, part, url)
        _flush(part)
        os.replace(part, path)
        transfer.discard(part)
        cache.record(card, digest, url)
    except InputError:
        transfer.discard(part)
        raise
    except OSError as error:
        raise cache.unwritable(error) from None
    return path


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _checked(card: WeightCard, path: Path, source: str) -> str:
    """Return the SHA-256 of a file that may be what the card says.

    Raises
    ------
    InputError
        If it is a web page, has another size, or hashes to something other than it must.
    """
    with path.open("rb") as file:
        if transfer.looks_like_html(file.read(512)):
            raise InputError(f"{source}: {transfer.WEB_PAGE}")
    size = path.stat().st_size
    if size == 0 or card.size not in (None, size):
        wanted = f"{card.size:,}" if card.size else "more"
        raise InputError(f"{source}: {size:,} bytes where {card.name} has {wanted}; not used")
    digest = file_sha256(path)
    _compare(card, digest, source)
    return digest


def _compare(card: WeightCard, digest: str, source: str) -> None:
    confirmed = card.sha256 if card.sha256_status == "confirmed" else card.sha256_prefix
    if not digest.startswith(confirmed or ""):
        raise InputError(
            f"{source}: SHA-256 {digest} where {card.name} has {confirmed}: another or a damaged "
            "file, not used"
        )
    known = cache.seen(card)
    if known and known.sha256 != digest and card.sha256_status != "confirmed":
        raise InputError(
            f"{source}: SHA-256 {digest}, but {known.sha256} when {card.name} was first fetched on "
            f"{known.date}; not used. If its publisher has replaced it, remove "
            f"{cache.seen_path(card)} and fetch it again"
        )
