"""Settings: ``hub.toml`` and environment variables, frozen once read; an unknown key is an error at start.

Each key of the table ``[hub]``-less TOML file is also the environment variable ``HUB_`` + the key in capitals; the
environment wins. Sizes are bytes, times are seconds. Limits cite where they come from beside their field.
"""

from __future__ import annotations

import os
import platform
import sys
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hub.errors import Category, HubError

GIB = 1 << 30
MIB = 1 << 20


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix="HUB_", extra="forbid", frozen=True)

    #: Where the embedded database, objects and keys live.
    data_dir: Path = Path("data")
    #: ``sqlite:///path`` or ``postgresql://...``; empty = ``{data_dir}/hub.db``.
    database_url: str = ""
    #: ``file:///path``, ``s3://BUCKET`` or ``memory://``; empty = ``{data_dir}/objects``.
    objects_url: str = ""
    s3_endpoint: str = ""
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = False
    #: With an S3 store: ``durable`` keeps each object on this node's disk, answers, and uploads it afterwards; empty = each
    #: is answered when S3 has it. It can be emptied again when nothing waits for its upload.
    objects_spool: Literal["", "durable"] = ""
    #: Uploads at once, and how each is confirmed before the local copy may go: ``head`` asks for it, ``read`` reads it back.
    objects_upload_threads: int = Field(default=4, ge=1, le=64)
    objects_upload_check: Literal["head", "read"] = "head"
    #: Oldest object waiting for its upload that raises the alert.
    objects_upload_alert_s: float = Field(default=900.0, gt=0)
    #: Disk space for copies of what was uploaded or read back (0 = none); the least recently read go first.
    objects_cache_bytes: int = Field(default=10 * GIB, ge=0)
    #: Objects up to this size are fetched whole from S3 and kept; of larger ones only the ranges that are asked for.
    objects_fetch_bytes: int = Field(default=8 * MIB, ge=0, le=GIB)

    http_bind: str = "127.0.0.1:8080"
    dimse_bind: str = "127.0.0.1:11112"
    mllp_bind: str = "127.0.0.1:2575"
    #: TLS twins of the doors; empty = off. They need ``tls_certificate`` and ``tls_key``.
    http_tls_bind: str = ""
    dimse_tls_bind: str = ""
    mllp_tls_bind: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    #: Certificates of the members' authorities; with it, peers must show a certificate.
    tls_client_ca: Path | None = None

    #: Name of this node among several that share one database; it begins the names of its processes, which must be
    #: unique because each keeps its own audit chain. Empty = none for SQLite, the host's name for PostgreSQL.
    node_name: str = ""

    ae_title: str = "YIXIE"
    sending_application: str = "YIXIE"
    sending_facility: str = "HUB"
    base_url: str = "https://yixiehub.example/fhir"
    #: Address that browsers and partners use to reach the HTTP door; empty = ``http://{http_bind}``.
    public_url: str = ""
    #: Reverse proxies in front of the HTTP door: addresses and networks (CIDR), separated by commas; empty = none. What
    #: these say of the caller's address is believed, for audit, limits and the networks of members; nobody else's word is.
    trusted_proxies: str = ""
    #: The header to which they append it. The other one is never looked at: they pass it on as the caller wrote it.
    trusted_proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    #: Where ``hub viewer add`` puts OHIF; empty = ``share/yixie-hub/viewer`` of the Python environment.
    viewer_dir: Path | None = None
    time_zone: str = "Asia/Shanghai"
    log_level: str = "info"

    #: Processes per door; the DIMSE and HTTP doors share their port between processes.
    dimse_processes: int = Field(default=2, ge=1, le=64)
    http_processes: int = Field(default=2, ge=1, le=64)
    worker_threads: int = Field(default=4, ge=1, le=64)

    #: Largest DICOM object taken (reference: one attribute value is at most 4 GiB, PS3.5 7.1.1).
    max_object_bytes: int = 4 * GIB
    #: Largest MLLP frame; peers' usual cap is 10 to 16 MiB.
    max_message_bytes: int = 16 * MIB
    #: Largest FHIR request body.
    max_fhir_bytes: int = 16 * MIB
    #: Largest STOW-RS request.
    max_stow_bytes: int = 8 * GIB
    #: An MLLP frame or HTTP body must be complete within this time and faster than ``min_bytes_per_s``.
    frame_deadline_s: float = 30.0
    min_bytes_per_s: int = 1024
    #: A whole HTTP request head must come within this time and size; common servers allow 10 to 60 s and 8 to 64 KiB.
    http_head_s: float = 10.0
    max_head_bytes: int = 32 * 1024
    #: HTTP connections of one process.
    http_connections: int = Field(default=1000, ge=1)
    #: Silence allowed between MLLP frames.
    mllp_idle_s: float = 600.0
    mllp_connections: int = 256
    #: DIMSE: time to the association request, between PDUs, and idle (PS3.8 ARTIM).
    association_request_s: float = 10.0
    pdu_deadline_s: float = 30.0
    association_idle_s: float = 120.0
    associations: int = Field(default=64, ge=1)
    associations_per_ae: int = Field(default=16, ge=1)
    max_pdu_bytes: int = MIB
    #: C-FIND: matches of one query; where there are more the last status says so (A700).
    query_matches: int = Field(default=10_000, ge=1)

    #: Child processes that decode and render images, for each process of the HTTP door; none runs while there is no work.
    pixel_processes: int = Field(default=2, ge=1, le=64)
    #: Bounds of one such process: address space, processor time of one image, time of one image, and how long it stays
    #: without work. Cloud services stop at frames of 150 MB too.
    pixel_memory_bytes: int = Field(default=2 * GIB, ge=256 * MIB)
    pixel_cpu_s: float = Field(default=20.0, gt=0)
    pixel_deadline_s: float = Field(default=30.0, gt=0)
    pixel_idle_s: float = Field(default=60.0, gt=0)
    #: Largest frame, decoded, that is transcoded or rendered.
    max_frame_bytes: int = Field(default=150 * MIB, ge=1)

    #: A member's images are recompressed (its setting ``recompression``) when nothing was received, sent or retrieved for so long.
    recompression_idle_s: float = Field(default=30.0, ge=0)
    #: Bytes of originals that are recompressed in a second, at most.
    recompression_bytes_per_s: int = Field(default=8 * MIB, ge=1)
    #: How long an original stays beside its packed form, so that copies made of the database first and of the objects
    #: afterwards hold one of them; longer than such a copy takes.
    recompression_keep_s: float = Field(default=86_400.0, ge=0)

    #: TOML file of hospitals' database views that are read instead of messages; it holds their passwords. Empty = none.
    views: Path | None = None
    #: Folder of the key files and passwords that members' SFTP endpoints name; empty = ``{data_dir}/secrets``.
    secrets_dir: Path | None = None

    #: A study is complete this long after its last association ended.
    study_quiet_s: float = 30.0
    #: How long a study waits for images that its modality says it made, or is still making (MPPS).
    step_wait_s: float = 3600.0
    #: How long a partner that was asked for storage commitment may take to report, before a person is asked to look.
    commitment_wait_s: float = Field(default=86_400.0, gt=0)
    #: Oldest undelivered message that raises the alert.
    queue_alert_s: float = 300.0
    #: Deliveries waiting for one destination that raise the alert. This and those below: 0 = never; a member's endpoint may
    #: say otherwise (its setting ``alerts``).
    queue_alert_depth: int = Field(default=1000, ge=0)
    #: Share of a feed's last messages that may be refused or fail.
    feed_alert_error_percent: int = Field(default=20, ge=0, le=100)
    #: Share of them that may hold codes which no map has.
    feed_alert_unmapped_percent: int = Field(default=50, ge=0, le=100)
    #: How many times its usual gap, at that hour of the week, a feed may be silent.
    feed_alert_idle_factor: int = Field(default=5, ge=0, le=100)
    #: Days before a certificate ends that raise the alert.
    certificate_alert_days: int = Field(default=30, ge=0)
    #: URLs that the operator's webhooks may lead to, or below, separated by commas; none is called that is not named here.
    webhook_urls: str = ""
    #: What alerts to webhooks are signed with; without it none is sent.
    webhook_secret: SecretStr = SecretStr("")
    #: How often the worker looks for due work when nothing wakes it.
    worker_poll_s: float = 0.25
    #: First and longest wait between attempts to deliver.
    retry_first_s: float = 1.0
    retry_longest_s: float = 300.0
    #: Attempts that reached the partner before a delivery becomes a dead letter.
    retry_attempts: int = 5
    delivery_timeout_s: float = 30.0

    token_ttl_s: int = 3600
    #: Days that a link for a patient is open when its maker says nothing, and at most.
    share_days: int = Field(default=7, ge=1, le=365)
    share_max_days: int = Field(default=90, ge=1, le=365)
    #: Wrong passwords before a link is locked for ``share_lock_s``, and in all before it is closed for good. Six digits,
    #: tried twenty times, are guessed once in 50,000 links, and the link must be known first.
    share_attempts: int = Field(default=5, ge=1, le=20)
    share_lock_s: int = Field(default=900, ge=1)
    share_attempts_ever: int = Field(default=20, ge=1, le=100)
    #: Wrong passwords from one address before it is locked as long; more, because mobile networks share addresses.
    share_address_attempts: int = Field(default=20, ge=1)
    #: How long the viewer may be used after the password was given.
    share_token_s: int = Field(default=1800, ge=60)
    #: Days that a partner keeps sight of finished work.
    grant_days_after: int = 30

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        if any(one.prefixlen == 0 for one in networks(value)):
            raise ValueError("a network of all addresses would let every caller choose its own; name the proxies")
        return value

    def database(self) -> str:
        """Return the database URL with its default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'hub.db').resolve()}"

    def node(self, process: str) -> str:
        """Return the name of *process* (``http-0``) that is unique among all that share the database."""
        embedded = self.database().startswith("sqlite:")
        name = self.node_name or ("" if embedded else platform.node())
        return f"{name}-{process}" if name else process

    def objects(self) -> str:
        """Return the object store URL with its default filled in."""
        return self.objects_url or f"file://{(self.data_dir / 'objects').resolve()}"

    def secrets(self) -> Path:
        """Return the folder of key files and passwords for partners' servers."""
        return self.secrets_dir or self.data_dir / "secrets"

    def viewer(self) -> Path:
        """Return the folder of the installed viewer, which all data directories of one environment share."""
        return self.viewer_dir or Path(sys.prefix) / "share" / "yixie-hub" / "viewer"

    def public(self) -> str:
        """Return the URL under which the HTTP door is reached, without a trailing slash."""
        return (self.public_url or f"http://{self.http_bind}").rstrip("/")


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks of a list separated by commas; an address alone is a network of one.

    Raises:
        ValueError: naming what is neither.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def load(path: Path | None = None, **overrides: Any) -> Settings:
    """Return the settings from *path* (or ``HUB_CONFIG``, or ``hub.toml`` when it exists), the environment and *overrides*.

    Raises:
        HubError: incorrect, naming every unknown or wrong key.
    """
    chosen = path or (Path(os.environ["HUB_CONFIG"]) if os.environ.get("HUB_CONFIG") else None)
    if chosen is None and Path("hub.toml").exists():
        chosen = Path("hub.toml")
    values: dict[str, Any] = {}
    if chosen is not None:
        try:
            values = tomllib.loads(chosen.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise HubError(
                Category.INCORRECT,
                f"The settings cannot be read: {error}",
                where=str(chosen),
                remedy="Write TOML as `key = value` lines; see docs/operations.md.",
            ) from error
    known = set(Settings.model_fields)
    unknown = sorted(set(values) - known)
    unknown += sorted(
        name
        for name in os.environ
        if name.startswith("HUB_") and name != "HUB_CONFIG" and name[4:].lower() not in known
    )
    if unknown:
        raise HubError(
            Category.INCORRECT,
            f"Unknown settings: {', '.join(unknown)}.",
            where=str(chosen or "environment"),
            remedy=f"Known keys are {', '.join(sorted(known))}.",
        )
    # The environment wins over the file, so a key set in both is left to pydantic-settings.
    values = {key: value for key, value in values.items() if f"HUB_{key.upper()}" not in os.environ}
    values.update(overrides)
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise HubError(
            Category.INCORRECT,
            f"Wrong settings: {problems}",
            where=str(chosen or "environment"),
            remedy="Mend them and start again.",
        ) from error
