"""What a run directory holds: its samples, features, images and references."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pulse_audit.documents import read_file, read_json
from pulse_audit.files import as_json, atomic_write, refuse_links
from pulse_audit.seeding import sha256
from pulse_audit.store import hand_labels, priors, ratings
from pulse_audit.store.columns import sample_schema
from pulse_audit.store.features import MAX_FEATURES, Features, as_npz, read_vectors
from pulse_audit.store.hand_labels import HandLabels, check_hand_labels
from pulse_audit.store.images import is_whole, lr_path, original_path, output_path
from pulse_audit.store.manifest import AttributesEntry, Manifest, WorkUnit
from pulse_audit.store.parquet import MAX_FILE
from pulse_audit.store.priors import PriorTable, read_prior_tables
from pulse_audit.store.ratings import RatingKey, Ratings, check_key, check_ratings
from pulse_audit.store.shards import as_parquet, read_shard, read_sources, to_frame
from pulse_audit.types import InputError

_NO_MODEL = AttributesEntry(vocabulary={})


@dataclass
class Run:
    """One run directory; see `pulse_audit.store.open_run` and `create_run`."""

    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def attributes(self) -> list[str]:
        """Label columns of the data set."""
        return list(self.manifest.dataset.vocabulary)

    @property
    def schema(self) -> pa.Schema:
        """Columns of this run's samples."""
        # Label columns, predictions of the attribute model, metrics of plug-ins.
        model = self.manifest.attributes
        predicted = None if model is None else list(model.vocabulary)
        measured = [name for metric in self.manifest.metrics.values() for name in metric.columns]
        checked = list((self.manifest.second_attributes or _NO_MODEL).vocabulary)
        framed = self.manifest.prepared.per_photo
        return sample_schema(self.attributes, predicted, measured, checked, framed)

    @property
    def features_dim(self) -> int | None:
        """Length of the stored feature vectors, None where the run keeps none."""
        return self.manifest.features.dim

    @property
    def complete(self) -> bool:
        """Whether the run finished and all of its shards are there."""
        return self.manifest.complete and not self.missing_units

    @property
    def missing_units(self) -> list[str]:
        """Work units of the whole plan that have no file of samples."""
        return [u.id for u in self.manifest.units if not self._shard(u.id).exists()]

    @property
    def samples_sha256(self) -> str:
        """Digest of the checksums of all shards: another one for other samples."""
        digest = hashlib.sha256()
        for unit in self._units_with_shard():
            with contextlib.suppress(FileNotFoundError):
                digest.update(read_file(self._checksum(unit.id)))
        return digest.hexdigest()

    def samples(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows of the finished units, in the order of the plan.

        Parameters
        ----------
        columns : sequence of str, optional
            Those that are needed; default all.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        schema = self.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        tables = list(map(self._reader(schema), self._units_with_shard()))
        return to_frame(pa.concat_tables(tables) if tables else schema.empty_table())

    def features(self) -> tuple[Features, dict[str, Features]] | None:
        """Feature vectors of outputs and originals, by the network that the manifest names.

        Returns
        -------
        outputs : array, (rows, d)
            float32, aligned with `samples`; rows of NaN where a draw has no output.
        originals : dict
            Face id -> (d,), one per face; empty until the run is complete.

        None where the run keeps no features.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        dim = self.features_dim
        if dim is None:
            return None
        # (rows, d), one block per finished unit.
        outputs = [np.empty((0, dim), np.float32)]
        for unit in self._units_with_shard():
            path = self._features(unit.id)
            vectors, _ = read_vectors(self._checked(unit.id, path), path, "sr_features", dim)
            if len(vectors) != len(unit.draws):
                counts = f"{len(vectors):,} vectors for {len(unit.draws):,} draws"
                raise InputError(f"{path}: {counts}")
            outputs.append(vectors)
        stacked = np.concatenate(outputs)
        return stacked, self.originals() if self._features("originals").exists() else {}

    def originals(self) -> dict[str, Features]:
        """Feature vectors of the originals by face id; errors as `features`."""
        path = self._features("originals")
        try:
            data = read_file(path, MAX_FEATURES)
        except FileNotFoundError:
            raise InputError(f"{path}: is missing") from None
        vectors, arrays = read_vectors(data, path, "features", self.features_dim or 0)
        ids = [str(face_id) for face_id in arrays.get("face_ids", np.empty(0, "U1")).ravel()]
        planned = {face.id for face in self.manifest.faces}
        if len(ids) != len(vectors) or len(set(ids)) != len(ids) or not planned.issuperset(ids):
            raise InputError(
                f"{path}: the vectors are not one for each face; "
                "the same `pulse-audit run` command makes it again"
            )
        return dict(zip(ids, vectors, strict=True))

    def source_tables(self) -> dict[str, pd.DataFrame] | None:
        """All tables of ``sources/`` by name; None where ``--sources`` was not finished.

        Raises
        ------
        InputError
            If a table cannot be read or does not fit the manifest.
        """
        return read_sources(self.path / "sources", self.manifest)

    def is_finished(self, unit: str) -> bool:
        """Whether a unit's shards exist and match their checksums."""
        try:
            self._checked(unit, self._shard(unit))
            if self.features_dim is not None:
                self._checked(unit, self._features(unit))
        except InputError:
            return False
        return True

    def _units_with_shard(self) -> list[WorkUnit]:
        """Units that were written, in the order of the plan."""
        return [unit for unit in self.manifest.units if self._shard(unit.id).exists()]

    def rows_of(self, unit: WorkUnit) -> pa.Table:
        """Rows of a unit; errors as `samples`."""
        return self._reader(self.schema)(unit)

    def _reader(self, schema: pa.Schema) -> Callable[[WorkUnit], pa.Table]:
        """Return what reads these columns of a unit: all units share the words and faces."""
        # Words that text columns may hold, by column.
        words: dict[str, Sequence[str]] = {
            f"label_{name}": known for name, known in self.manifest.dataset.vocabulary.items()
        }
        for name, known in (self.manifest.attributes or _NO_MODEL).vocabulary.items():
            words |= {f"{side}_{name}{end}": known for side in ("hr", "sr") for end in ("", "_p")}
        for name, known in (self.manifest.second_attributes or _NO_MODEL).vocabulary.items():
            words |= {f"{side}_{name}_check": known for side in ("hr", "sr")}
        faces = {face.id for face in self.manifest.faces}
        truths = {name: arm.truth for name, arm in self.manifest.arms.items()}

        def read(unit: WorkUnit) -> pa.Table:
            truth = truths[unit.arm]
            known = {**words, "planted_group": truth.groups if truth else []}
            path = self._shard(unit.id)
            return read_shard(self._checked(unit.id, path), path, unit, schema, known, faces)

        return read

    def _checked(self, unit: str, path: Path) -> bytes:
        """Bytes of a file of a unit; InputError if they do not match its checksum."""
        checksum, limit = self._checksum(unit), max(MAX_FILE, MAX_FEATURES)
        with contextlib.suppress(FileNotFoundError, ValueError):
            # Files are named as seen from the folder of the checksums.
            lines = read_file(checksum).decode().splitlines()
            recorded = {name: digest for digest, name in map(str.split, lines)}
            data = read_file(path, limit)
            if recorded.get(os.path.relpath(path, checksum.parent)) == sha256(data):
                return data
        raise InputError(
            f"{path}: does not match its checksum; "
            "the same `pulse-audit run` command makes it again"
        )

    def write_unit(
        self, unit: str, rows: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> None:
        """Write a unit's rows as one shard, whole or not at all.

        ``features`` are those of its outputs, (rows, d), where the run keeps them.
        """
        # The shard is renamed last: where it exists, features and checksums do.
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        # Ranges of columns are most of a file's description, which is checked at every reading.
        files = {f"{unit}.parquet": as_parquet(table, statistics=False)}
        if features is not None:
            files[f"../features/{unit}.npz"] = as_npz(sr_features=features)
            atomic_write(self._features(unit), files[f"../features/{unit}.npz"])
        # One line per file, as sha256sum reads them.
        sums = "".join(f"{sha256(data)}  {name}\n" for name, data in files.items())
        atomic_write(self._checksum(unit), sums.encode())
        atomic_write(self._shard(unit), files[f"{unit}.parquet"])

    def unit_files(self, unit: str) -> dict[str, bytes]:
        """All files of a finished unit by their names in the run, the samples last.

        Raises
        ------
        InputError
            If one does not match its checksum.
        """
        sums = self._name(self._checksum(unit))
        return {
            name: read_file(self.path / name)
            if name == sums
            else self._checked(unit, self.path / name)
            for name in self.names_of(unit)
        }

    def names_of(self, unit: str) -> list[str]:
        """Names of the files of a unit, whether they are there or not, the samples last."""
        features = [] if self.features_dim is None else [self._features(unit)]
        return [self._name(p) for p in (*features, self._checksum(unit), self._shard(unit))]

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Write the files of a unit of another run of the same plan, in the order given."""
        for name, data in files.items():
            atomic_write(self.path / name, data)

    def write_originals(self, features: Mapping[str, Features]) -> None:
        """Write the feature vectors of the originals, one a face."""
        ids, vectors = list(features), np.stack(list(features.values()))
        atomic_write(self._features("originals"), as_npz(face_ids=np.array(ids), features=vectors))

    def write_references(self, content: Mapping[str, Any]) -> None:
        """Write what was fitted on all originals: NIQE's model, the verification threshold."""
        self.write_json("references.json", dict(content))

    def read_references(self) -> dict[str, Any] | None:
        """Read what `write_references` wrote; None where nothing is."""
        path = self.path / "references.json"
        try:
            content = read_json(path)
        except FileNotFoundError:
            return None
        return content if isinstance(content, dict) else {}

    def write_hand_labels(self, labels: HandLabels) -> None:
        """Keep people's labels of outputs, in place of earlier ones."""
        self.write_json(hand_labels.NAME, labels.model_dump())

    def read_hand_labels(self) -> HandLabels | None:
        """Read what `write_hand_labels` wrote; None where nothing is.

        Raises
        ------
        InputError
            If it does not match its checksum, or does not belong to the run.
        """
        path = self.path / hand_labels.NAME
        try:
            content = read_json(path, hand_labels.MAX_BYTES)
        except FileNotFoundError:
            return None
        vocabulary = self.manifest.dataset.vocabulary
        return check_hand_labels(content, path, self.manifest.planned_outputs, vocabulary)

    def write_ratings(self, answers: Ratings) -> None:
        """Keep people's ratings, in place of earlier ones."""
        self.write_json(ratings.NAME, answers.model_dump())

    def read_ratings(self) -> Ratings | None:
        """Read what `write_ratings` wrote; None where nothing is.

        Raises
        ------
        InputError
            If it does not match its checksum, or does not belong to the run.
        """
        path = self.path / ratings.NAME
        try:
            content = read_json(path, ratings.MAX_BYTES)
        except FileNotFoundError:
            return None
        return check_ratings(content, path, self.manifest)

    def key_path(self, kit: str) -> Path:
        """Where the key of a rating kit is kept."""
        return self.path / ratings.FOLDER / f"key-{kit}.json"

    def write_rating_key(self, key: RatingKey) -> None:
        """Keep the key of a rating kit."""
        self.write_json(f"{ratings.FOLDER}/key-{key.kit}.json", key.model_dump())

    def read_rating_key(self, kit: str) -> RatingKey:
        """Read the key of a rating kit; InputError if it is damaged or of another run."""
        path = self.key_path(kit)
        try:
            content = read_json(path, ratings.MAX_KEY)
        except FileNotFoundError:
            raise InputError(
                f"{path}: is missing; answers are read with the key of their kit"
            ) from None
        return check_key(content, path, self.manifest)

    def write_priors(self, tables: Mapping[str, PriorTable]) -> None:
        """Keep samples of the priors of searches, by arm."""
        content = {arm: table.model_dump() for arm, table in tables.items()}
        self.write_json(f"sources/{priors.NAME}", content)

    def read_priors(self) -> dict[str, PriorTable] | None:
        """Read what `write_priors` wrote; None where nothing is.

        Raises
        ------
        InputError
            If it is damaged.
        """
        path = self.path / "sources" / priors.NAME
        try:
            content = read_json(path, priors.MAX_BYTES)
        except FileNotFoundError:
            return None
        return read_prior_tables(content, path, self.manifest.arms)

    def images_of(self, unit: WorkUnit) -> list[str]:
        """Paths of the images that a finished unit kept, relative to the run; errors as `samples`.

        Outputs, and the originals and inputs that units share.
        """
        if self.manifest.spec.keep_images == "none":
            return []
        kept = self.rows_of(unit)["image"].is_valid().to_pylist()
        names = [
            name
            for (face_id, draw), is_kept in zip(unit.draws, kept, strict=False)
            for key in [(face_id, unit.condition, unit.scale, draw)]
            for name in (output_path(unit.arm, *key), original_path(face_id), lr_path(*key))
            if is_kept
        ]
        return list(dict.fromkeys(names))

    @property
    def has_originals(self) -> bool:
        """Whether the feature vectors of the originals of all own units are there and whole."""
        own = {face_id for unit in self.manifest.own_units for face_id, _ in unit.draws}
        try:
            return own <= self.originals().keys()
        except InputError:
            return False

    def has_images(self, unit: WorkUnit, checked: dict[str, bool]) -> bool:
        """Whether the images that a finished unit kept are there; damaged ones are removed.

        ``checked`` remembers the images of other units, which share originals and inputs.
        """
        try:
            names = self.images_of(unit)
        except InputError:
            return False
        for name in names:
            if name not in checked:
                path = self._image(name)
                checked[name] = is_whole(path)
                # Those that are shared are only written where they are missing.
                if not checked[name]:
                    path.unlink(missing_ok=True)
        return all(checked[name] for name in names)

    def write_manifest(self, **changes: Any) -> None:
        """Change entries of the manifest and write it whole."""
        # Every entry is validated as it is set.
        for name, value in changes.items():
            setattr(self.manifest, name, value)
        self.write_json("manifest.json", self.manifest.as_dict())

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run whole; not-a-number is refused, not written."""
        atomic_write(self.path / name, as_json(content))
        return self.path / name

    def write_image(self, relative: str, png: bytes) -> None:
        """Write an image of the run whole, never through a linked folder.

        Raises
        ------
        InputError
            If a folder on the way is a link.
        """
        atomic_write(self._image(relative), png)

    def has_image(self, relative: str) -> bool:
        """Whether an image of the run is there."""
        return (self.path / relative).exists()

    def _image(self, relative: str) -> Path:
        """Place of an image of the run; refused where a folder on the way is a link."""
        refuse_links(self.path, [str(parent) for parent in Path(relative).parents if parent.name])
        return self.path / relative

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _shard(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.parquet"

    def _features(self, unit: str) -> Path:
        return self.path / "features" / f"{unit}.npz"

    def _checksum(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.sha256"
