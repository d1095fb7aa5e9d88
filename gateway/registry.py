"""The bundled schemas over the Confluent Schema Registry's REST API, read-only.

Subjects: `meshyard.<record>`, and `<topic>-value` for each topic of the catalogue, as plain producers look them up.
Both name the same schema under the same id. Error codes are those of Confluent's API reference.
"""

from collections.abc import Mapping
from typing import Any, Final

from schemas.registry import BundledRegistry, SchemaVersion, canonical_sha256
from schemas.topics import catalogue

SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
SCHEMA_NOT_FOUND: Final = 40403
INVALID_SCHEMA: Final = 42201
INVALID_VERSION: Final = 42202
READ_ONLY: Final = 42205


class RegistryProblem(Exception):
    """A registry request cannot be served; status and code are Confluent's."""

    def __init__(self, status: int, code: int, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


class RegistryView:
    """Answers of the registry as JSON values. Every call may raise RegistryProblem."""

    def __init__(self, bundled: BundledRegistry, domains: tuple[str, ...]) -> None:
        self._by_id = {version.schema_id: version for version in bundled.all()}
        self._by_name: dict[str, list[SchemaVersion]] = {}
        for version in bundled.all():
            self._by_name.setdefault(version.name, []).append(version)
        self._subjects: dict[str, str] = {f"meshyard.{name}": name for name in self._by_name}
        for topic in catalogue(domains=domains):
            if topic.record is not None:
                self._subjects[f"{topic.name}-value"] = topic.record

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject, from 1."""
        return sorted(version.version for version in self._of(subject))

    def version(self, subject: str, number: str) -> dict[str, Any]:
        """One version; `latest` and -1 name the newest."""
        versions = sorted(self._of(subject), key=lambda v: v.version)
        if number in ("latest", "-1"):
            return _described(subject, versions[-1])
        if not number.isascii() or not number.isdigit() or int(number[:10]) < 1:
            raise RegistryProblem(422, INVALID_VERSION, "The specified version is not a valid version id.")
        for version in versions:
            if version.version == int(number[:10]):
                return _described(subject, version)
        raise RegistryProblem(404, VERSION_NOT_FOUND, "Version not found.")

    def by_id(self, schema_id: str) -> dict[str, Any]:
        """The schema behind an id of the wire format."""
        found = self._by_id.get(int(schema_id[:10])) if schema_id.isascii() and schema_id.isdigit() else None
        if found is None:
            raise RegistryProblem(404, SCHEMA_NOT_FOUND, "Schema not found.")
        return {"schema": found.text}

    def lookup(self, subject: str, body: object) -> dict[str, Any]:
        """The version of a subject that has this schema, documentation aside."""
        wanted = _canonical(body)
        for version in self._of(subject):
            if canonical_sha256(version.text) == wanted:
                return _described(subject, version)
        raise RegistryProblem(404, SCHEMA_NOT_FOUND, "Schema not found.")

    def register(self, subject: str, body: object) -> dict[str, Any]:
        """The id of a schema that is there already; nothing is ever added."""
        try:
            return {"id": self.lookup(subject, body)["id"]}
        except RegistryProblem as problem:
            if problem.status != 404:
                raise
            raise RegistryProblem(
                403, READ_ONLY, "This registry is read-only: its schemas come with the release."
            ) from None

    def _of(self, subject: str) -> list[SchemaVersion]:
        name = self._subjects.get(subject)
        if name is None:
            raise RegistryProblem(404, SUBJECT_NOT_FOUND, "Subject not found.")
        return self._by_name[name]


def _described(subject: str, version: SchemaVersion) -> dict[str, Any]:
    return {
        "subject": subject,
        "id": version.schema_id,
        "version": version.version,
        "schemaType": "AVRO",
        "schema": version.text,
    }


def _canonical(body: object) -> str:
    text = body.get("schema") if isinstance(body, Mapping) else None
    if not isinstance(text, str) or text.count("{") + text.count("[") > 500:
        raise RegistryProblem(422, INVALID_SCHEMA, "The body needs a `schema`, an Avro schema as text.")
    try:
        return canonical_sha256(text)
    except Exception as error:  # ValueError of JSON, fastavro's own families: one fate
        raise RegistryProblem(422, INVALID_SCHEMA, "The schema is no valid Avro schema.") from error
