"""Fetching weights: licence, resumable download, checks, and only then the file's own name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from pulse_audit.datasets.registry import load_registry
from pulse_audit.files import file_sha256
from pulse_audit.models import download, package, published
from pulse_audit.models.download import MIRROR
from pulse_audit.models.published import WeightCard
from pulse_audit.types import InputError, Progress


def to_fetch(names: Sequence[str]) -> list[WeightCard]:
    """Return the cards of weights by name, each followed by the Gaussian fit it needs, if any.

    Raises
    ------
    InputError
        If a name is unknown, or is a data set, which has to be obtained by hand.
    """
    # Data sets have no direct links: say how each is obtained.
    datasets = load_registry().cards
    for name in names:
        if name in datasets:
            raise InputError(f"{name} is a data set without a direct link: {datasets[name].obtain}")
    with_fits = [n for name in names for n in (name, published.get(name).gaussian_fit) if n]
    return [published.get(name) for name in dict.fromkeys(with_fits)]


def fetch(
    card: WeightCard,
    accept: Callable[[str], bool],
    progress: Progress = lambda done, total, restored: None,
) -> Path:
    """Fetch the file of a card into the cache, unless it is there.

    Parameters
    ----------
    card : WeightCard
    accept : callable
        ``accept(terms) -> bool``: called where the licence has to be accepted; the answer is
        recorded on this machine.
    progress : callable
        ``progress(done, total, restored)`` in bytes.

    Returns
    -------
    Path
        The file, checked.

    Raises
    ------
    InputError
        If the licence is not accepted, the file has to be fetched by hand, or the server, the disk
        or the file's content does not allow it. The same call resumes a cut download.
    """
    with published.locked_for_writing(card):
        path = published.fetched_file(card)
        if path is not None:
            return path
        path, url = published.path_of(card), source_of(card)
        # A file in the cache without a record of a download was put there by the user.
        by_hand = path.is_file() and (published.first_download(card) is None or url is None)
        by_hand = by_hand and card.package is None
        if url is None and not by_hand:
            raise InputError(
                f"{card.name}: {card.obtain}; open {card.page} in a browser, save {card.file_name} "
                f"as {path} (or in the folder of {MIRROR}) and run the same command again"
            )

        # The licence, once for each machine.
        if not published.is_accepted(card.licence):
            if not accept(terms(card)):
                raise InputError(
                    f"{card.name}: not fetched, its licence was not accepted "
                    f"({card.licence.name}, {card.licence.url})"
                )
            try:
                published.record_acceptance(card.licence)
            except OSError as error:
                raise published.unwritable(error) from None

        if by_hand or url is None:
            try:
                published.record(card, _checked_sha256(card, path, str(path)), path.as_uri())
            except OSError as error:
                raise InputError(f"{path}: cannot be used ({error.strerror})") from None
            return path

        # Into a part file, from a package, a mirror in a folder or over HTTP.
        part = path.with_name(f"{path.name}.part")
        if card.package is not None:
            package.collect(card.package, part, progress)
        elif urlsplit(url).scheme == "file":
            download.copy(Path(url2pathname(urlsplit(url).path)), part, progress)
        else:
            download.download(url, part, card.size, progress)
        # The file gets its name only after its content is checked and on disk.
        try:
            digest = _checked_sha256(card, part, url)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
            download.discard(part)
            published.record(card, digest, url)
        except InputError:
            download.discard(part)
            raise
        except OSError as error:
            raise published.unwritable(error) from None
        return path


def fetch_showing_terms(
    card: WeightCard,
    accept_licence: bool,
    ask: Callable[[], bool] | None,
    show: Callable[[str], None],
    progress: Progress,
) -> None:
    """Fetch one file: show its licence before the first byte, and afterwards any hash warning.

    Parameters
    ----------
    card : WeightCard
    accept_licence : bool
        Whether the user has accepted the licence on the command line.
    ask : callable or None
        Asks the user to accept the licence; None without a terminal.
    show : callable
        Prints a line.
    progress : callable
        ``progress(done, total, restored)`` in MB.

    Raises
    ------
    InputError
        If the file cannot be fetched, or its licence is not accepted.
    """
    if published.fetched_file(card) is not None:
        return
    show_terms = functools.cache(lambda: show(terms(card)))  # once

    def accept(text: str) -> bool:
        if not accept_licence and ask is None:
            raise InputError(
                f"{card.name}: its licence ({card.licence.name}, {card.licence.url}) has to be "
                "accepted once: add --accept-licence"
            )
        show_terms()
        return accept_licence or (ask is not None and ask())

    def in_megabytes(done: int, total: int, restored: int) -> None:
        # Rounded so that the last MB counts as done only when the last byte is.
        show_terms()
        whole = -(-total // 10**6)
        progress(whole if done >= total else done // 10**6, whole, restored // 10**6)

    fetch(card, accept, in_megabytes)
    show_terms()
    if warning := hash_warning(card):
        show(warning)


def terms(card: WeightCard) -> str:
    """Return a card's licence and what it was trained on, in one line."""
    licence = card.licence
    unstated = "" if licence.confirmed else "; not stated for this very file"
    where = f", {licence.url}" if licence.url else ""
    return (
        f"{card.name}: licence {licence.name}{where} ({licence.note}{unstated}); "
        f"trained on {card.trained_on}"
    )


def hash_warning(card: WeightCard) -> str | None:
    """Return a warning where the SHA-256 of a fetched file is not a confirmed one, else None."""
    recorded = published.first_download(card)
    if recorded is None or card.sha256_status == "confirmed":
        return None
    if card.sha256 is None:
        return (
            f"{card.name}: no SHA-256 has been published; {recorded.sha256} is recorded, and later "
            "downloads have to match it"
        )
    if recorded.sha256 == card.sha256:
        return f"{card.name}: SHA-256 as claimed by {card.sha256_source}"
    return (
        f"{card.name}: SHA-256 {recorded.sha256} is NOT the {card.sha256} claimed by "
        f"{card.sha256_source}; recorded, but not verified"
    )


def source_of(card: WeightCard) -> str | None:
    """Return the address of a card's file: its package, in PULSE_AUDIT_MIRROR, or its own."""
    # Packages come through pip, which has mirrors of its own.
    if card.package is not None:
        return f"package:{card.package.name}=={card.package.version}"
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return card.url
    # A folder or an address, below which files have the names of weights.yaml.
    try:
        if "://" not in mirror:
            return (Path(mirror).expanduser().absolute() / card.file_name).as_uri()
        scheme = urlsplit(mirror).scheme
    except (RuntimeError, ValueError) as error:  # ~nobody; an address such as http://[
        raise InputError(f"{MIRROR}={mirror!r}: {error}") from None
    if scheme not in ("http", "https", "file"):
        raise InputError(f"{MIRROR}={mirror!r}: give a folder or an http, https or file address")
    return f"{mirror.rstrip('/')}/{quote(card.file_name)}"


def _checked_sha256(card: WeightCard, path: Path, source: str) -> str:
    """Return the SHA-256 of a file, checked against its card and the first download."""
    # A quota or log-in page, and a file of another size, are recognised without hashing.
    with path.open("rb") as file:
        if download.looks_like_html(file.read(512)):
            raise InputError(f"{source}: {download.WEB_PAGE}")
    size = path.stat().st_size
    if size == 0 or card.size not in (None, size):
        expected = f"{card.size:,}" if card.size else "more"
        raise InputError(f"{source}: {size:,} bytes where {card.name} has {expected}; not used")

    # Required are a confirmed SHA-256 and the digits in a file's name; a claimed one is only shown.
    digest = file_sha256(path)
    required = card.sha256 if card.sha256_status == "confirmed" else card.sha256_prefix
    if not digest.startswith(required or ""):
        raise InputError(
            f"{source}: SHA-256 {digest} where {card.name} has {required}: another or a damaged "
            "file, not used"
        )
    # Without a confirmed one, the file has to be that of the first download.
    recorded = published.first_download(card)
    if recorded and recorded.sha256 != digest and card.sha256_status != "confirmed":
        raise InputError(
            f"{source}: SHA-256 {digest}, but {recorded.sha256} when {card.name} was first fetched "
            f"on {recorded.date}; not used. If its publisher has replaced it, remove "
            f"{published.record_path(card)} and fetch it again"
        )
    return digest
