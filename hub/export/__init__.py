"""De-identified copies of an institution's own studies, as a job (PS3.15 annex E; https://hl7.org/fhir/R4/task.html).

Theory of operation. A job is a Task of the institution that asked. What is to be done stands in it as one text with a
seal, an HMAC under the project's key, so that only a job that was asked for here, by somebody who may, is ever done. The
worker takes one job at a time under a lease, freezes the list of instances in the job's folder, and makes the copies in
small steps. Each step leaves a record beside the files before the Task says so; whoever goes on after a crash or on
another node does the steps without a record, and the same instance always becomes the same file.

The result is the folder ``{data_dir}/exports/<job>``: one Part 10 file for each copy and ``manifest.json``. Nothing in it
leads back. Whoever has the project's key can make the table of UIDs again (:meth:`Exports.mapping`); it is never stored.
"""

from hub.export.files import key_file
from hub.export.jobs import Exports
from hub.export.request import ROLES, Request
from hub.export.studies import MAX_INSTANCES, MAX_STUDIES
from hub.export.task import CODE

__all__ = ["CODE", "MAX_INSTANCES", "MAX_STUDIES", "ROLES", "Exports", "Request", "key_file"]
