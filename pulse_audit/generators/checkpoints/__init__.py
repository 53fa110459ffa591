"""Reading generators that others published, without executing anything in their files.

Recognised: StyleGAN 1 (PULSE, lernapparat, genforce, rosinality), StyleGAN 2 and ADA (NVIDIA
pickles, rosinality, genforce), StyleGAN 3 T and R (NVIDIA pickles), MobileStyleGAN (OpenVINO),
``torch.export`` programs and our own safetensors files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

from torch import Tensor

from pulse_audit.files import file_sha256
from pulse_audit.generators.checkpoints import layouts
from pulse_audit.generators.checkpoints.budget import Damaged, file_budget
from pulse_audit.generators.checkpoints.openvino import find_networks, read_network
from pulse_audit.generators.checkpoints.programs import ExportedDecoder, is_program, load_program
from pulse_audit.generators.checkpoints.recognise import (
    StoredGenerator,
    find_generator,
    stylegan2_settings,
    stylegan3_settings,
)
from pulse_audit.generators.checkpoints.torch_archive import (
    ZIP_START,
    archive,
    check_safetensors,
    opened,
)
from pulse_audit.generators.mobilestylegan import MobileStyleGAN
from pulse_audit.generators.native_format import read_native
from pulse_audit.generators.stylegan1 import StyleGAN1
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan3 import StyleGAN3
from pulse_audit.types import InputError

Network = StyleGAN1 | StyleGAN2 | StyleGAN3 | MobileStyleGAN | ExportedDecoder

LONGEST_REASON = 240
# A program is read into memory, twice for a moment.
MAX_PROGRAM = 2**29


def read_checkpoint(
    path: str | Path,
    *,
    mapping: str | Path | None = None,
    resolution: int | None = None,
    upsampling: str | None = None,
    trust_file: str | None = None,
) -> Network:
    """Read a generator from a file whose layout is recognised; nothing in it is executed.

    Parameters
    ----------
    path : path
        The checkpoint.
    mapping : path, optional
        For PULSE's ``synthesis.pt``: the mapping network. Default: ``mapping.pt`` beside it if
        there is one; without it the network has synthesis only.
    resolution : int, optional
        For rosinality's StyleGAN 1, whose files hold more layers than were trained: the resolution
        to use. For all others it is checked: it has to be the network's own, or a whole fraction of
        it, to which the caller shrinks the pictures.
    upsampling : {"auto", "fused", "separate"}, optional
        For genforce's StyleGAN 1, and needed there: its setting ``fused_scale`` (auto, True,
        False), which the file does not hold.
    trust_file : str, optional
        SHA-256 of a ``.pt2`` program that contains more than a plain export, to load it all the
        same: **that runs what is in it**. For any file, a digest given has to be the file's.

    Returns
    -------
    network
        A style network (frozen, float32), or for a program a decoder with ``latent_dim``.

    Raises
    ------
    InputError
        If the file is missing, damaged, of no known layout, or unsafe; if it holds a tensor that
        its layout does not know; if an option is missing or does not fit.
    """
    path = Path(path)
    with _reading(path):
        if not path.is_file():
            raise InputError("there is no such file")
        if trust_file is not None and trust_file.lower() != file_sha256(path):
            raise InputError(f"its SHA-256 is {file_sha256(path)}, not the one given")
        network = _read(path, mapping, resolution, upsampling, trust_file is not None)
        # Rosinality's files are cut at the resolution; all others have their own.
        native: int | None = getattr(network, "resolution", None)
        if resolution is None or native is None:
            return network
        if resolution < 1 or native % resolution:
            raise InputError(f"it holds a network of {native} px, not {resolution}")
        return network


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Read within one budget, and name the file in every refusal, in one printable line."""
    try:
        with file_budget():
            yield
    except Damaged as error:
        raise InputError(_line(f"{path}: cannot be read: {error}")) from error
    except InputError as error:
        text = str(error)
        raise InputError(
            text if text.startswith(str(path)) else _line(f"{path}: {text}")
        ) from error
    except OSError as error:
        raise InputError(_line(f"{path}: cannot be read: {error.strerror or error}")) from error


def _line(text: str) -> str:
    """Whatever a file says about itself, as one line without control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text[: LONGEST_REASON + 1])
    return plain if len(plain) <= LONGEST_REASON else f"{plain[:LONGEST_REASON]}..."


def _read(
    path: Path,
    mapping: str | Path | None,
    resolution: int | None,
    upsampling: str | None,
    trusted: bool,
) -> Network:
    # Our own format by its suffix, programs by what the archive holds.
    native, program, exported = path.suffix == ".safetensors", False, None
    with path.open("rb") as file:
        if not native and file.read(4) == ZIP_START:
            with archive(file) as members:
                program = is_program(members)
                # Networks exported to OpenVINO's format, by the names of the members.
                if networks := find_networks(members):
                    exported = _mobilestylegan(members, networks)
        elif path.suffix == ".pt2":
            raise InputError("it is no torch.export program, which would be a zip archive")
    if upsampling is not None and (native or program or exported):
        raise InputError(f"@{upsampling} is for a StyleGAN 1 of genforce, which this is not")
    if exported:
        if mapping is not None:
            raise InputError("a mapping file belongs to PULSE's synthesis.pt, not to this archive")
        return exported
    if native:
        check_safetensors(path)
        try:
            return read_native(path)
        except (LookupError, ValueError, ArithmeticError, RuntimeError) as error:
            raise Damaged(f"its tensors do not fit together: {error}") from error
    # A program that is refused can be trusted by its digest, which the message gives.
    if program:
        if not trusted and path.stat().st_size > MAX_PROGRAM:
            raise InputError(f"a program of over {MAX_PROGRAM:,} bytes is not read")
        try:
            return load_program(path.read_bytes(), trusted)
        except Damaged as error:
            if trusted:
                raise
            raise InputError(
                f"{path}: refused, not opened: {_line(str(error))[: LONGEST_REASON - 80]}"
                "; if you know who made it and trust them with your machine, add "
                f"--trust-file {file_sha256(path)}"
            ) from error
    # Everything else is a pickle of some kind, read without running it.
    with opened(path) as root:
        stored = find_generator(root)
        if mapping is not None and stored.layout != "stylegan1-pulse":
            raise InputError(f"a mapping file belongs to PULSE's synthesis.pt, not {stored.layout}")
        if upsampling is not None and stored.layout != "stylegan1-genforce":
            raise InputError(f"@{upsampling} is for a StyleGAN 1 of genforce, not {stored.layout}")
        try:
            return _build(stored, path, mapping, resolution, upsampling)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise Damaged(f"its tensors do not fit together: {error}") from error


def _mobilestylegan(members: ZipFile, networks: Mapping[str, str]) -> MobileStyleGAN:
    """Build the network of an archive with a mapping and a synthesis network in OpenVINO's IR."""
    if set(networks) != {"MappingNetwork", "SynthesisNetwork"}:
        raise InputError("wanted MappingNetwork and SynthesisNetwork in it, .xml and .bin of each")
    states = [read_network(members, networks[name]) for name in sorted(networks)]
    try:
        return MobileStyleGAN.from_state(layouts.mobilestylegan_from_openvino(*states))
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise Damaged(f"its tensors do not fit together: {error}") from error


def _build(
    stored: StoredGenerator,
    path: Path,
    mapping: str | Path | None,
    resolution: int | None,
    upsampling: str | None,
) -> StyleGAN1 | StyleGAN2 | StyleGAN3:
    """Build the network of a layout from the tensors of the file."""
    if stored.layout == "stylegan1-pulse-mapping":
        raise InputError("it is a mapping network alone; give the synthesis file")
    state = stored.state()
    match stored.layout:
        case "stylegan2":
            return StyleGAN2.from_state(state, **stylegan2_settings(stored.module))
        case "stylegan3":
            return StyleGAN3.from_state(state, stylegan3_settings(stored.module))
        case "stylegan2-rosinality":
            average = stored.beside_tensor("latent_avg")
            return StyleGAN2.from_state(layouts.stylegan2_from_rosinality(state, average))
        case "stylegan2-genforce":
            # Its StyleGAN 2 normalises z and class together, its ADA one by one.
            joint_norm = "mapping.LabelEmbed.weight" not in state
            translated = layouts.stylegan2_from_genforce(state)
            return StyleGAN2.from_state(translated, joint_norm=joint_norm)
        case "stylegan1-lernapparat":
            return layouts.stylegan1_from_lernapparat(state)
        case "stylegan1-genforce":
            return layouts.stylegan1_from_genforce(state, upsampling)
        case "stylegan1-rosinality":
            return layouts.stylegan1_from_rosinality(state, resolution)
        case _:
            # PULSE's: the mapping file that was given, or the one beside it.
            place = Path(mapping) if mapping is not None else path.with_name("mapping.pt")
            mapping_state: dict[str, Tensor] | None = None
            if mapping is not None or place.is_file():
                with _reading(place), opened(place) as root:
                    second = find_generator(root)
                    if second.layout != "stylegan1-pulse-mapping":
                        raise InputError("it holds no mapping network in PULSE's layout")
                    mapping_state = second.state()
            return StyleGAN1(state, mapping_state)
