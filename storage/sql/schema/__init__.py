"""The tables. Every row of member data carries its owner institution.

Moments are integer microseconds since 1970 UTC (``*_at``), so that both databases compare them alike. Bodies are the
bytes as stored.
"""

from __future__ import annotations

from storage.sql.schema.audit import audit, audit_checkpoint, audit_patient
from storage.sql.schema.channels import workitem_event
from storage.sql.schema.codes import unmapped_code
from storage.sql.schema.credentials import access_token, oauth_client
from storage.sql.schema.grants import access_grant
from storage.sql.schema.imaging import imaging_instance, imaging_series, imaging_study
from storage.sql.schema.index import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri
from storage.sql.schema.journal import journal
from storage.sql.schema.members import member, member_endpoint, member_practitioner, setting
from storage.sql.schema.outbox import outbox, outbox_destination, outbox_lane
from storage.sql.schema.packing import object_packing
from storage.sql.schema.records import condition_lock, record, record_history
from storage.sql.schema.sharing import share_attempt, share_link, share_study, share_token
from storage.sql.schema.timers import alert, lease, timer
from storage.sql.schema.types import Serial, String, metadata

__all__ = [
    "Serial",
    "String",
    "access_grant",
    "access_token",
    "alert",
    "audit",
    "audit_checkpoint",
    "audit_patient",
    "condition_lock",
    "idx_date",
    "idx_quantity",
    "idx_reference",
    "idx_string",
    "idx_token",
    "idx_uri",
    "imaging_instance",
    "imaging_series",
    "imaging_study",
    "journal",
    "lease",
    "member",
    "member_endpoint",
    "member_practitioner",
    "metadata",
    "oauth_client",
    "object_packing",
    "outbox",
    "outbox_destination",
    "outbox_lane",
    "record",
    "record_history",
    "setting",
    "share_attempt",
    "share_link",
    "share_study",
    "share_token",
    "timer",
    "unmapped_code",
    "workitem_event",
]
