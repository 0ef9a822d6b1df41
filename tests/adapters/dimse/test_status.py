"""What the services of DIMSE-N answer to each kind of error (PS3.7 annex C.5)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from adapters.dimse import status
from fhir_mappings.errors import MappingError
from hub.errors import Category, HubError

#: Category -> what a performed procedure step, an availability notice and a workitem are answered with.
STATUSES = {
    Category.INCORRECT: (0x0106, 0x0106, 0x0106),
    Category.UNSUPPORTED: (0x0110, 0x0110, 0x0110),
    Category.FORBIDDEN: (0x0110, 0x0124, 0x0124),
    Category.NOT_FOUND: (0x0112, 0x0110, 0x0110),
    Category.CONFLICT: (0x0111, 0x0111, 0x0110),
    Category.BUSY: (0x0213, 0x0213, 0x0213),
    Category.UNAVAILABLE: (0x0213, 0x0213, 0x0213),
    Category.INTERRUPTED: (0x0213, 0x0213, 0x0213),
    Category.FAULT: (0x0110, 0x0110, 0x0110),
}
TABLES = (status.MPPS_BY_CATEGORY, status.AVAILABILITY_BY_CATEGORY, status.UPS_BY_CATEGORY)


@pytest.mark.parametrize("category", list(Category))
def test_each_service_has_a_status_for_each_category(category: Category) -> None:
    error = HubError(category, "Something is wrong.", where="here")
    assert tuple(status.of_normalized(error, table)[0] for table in TABLES) == STATUSES[category]


@pytest.mark.parametrize("table", TABLES)
def test_a_failed_disk_reads_as_later_and_what_cannot_be_read_as_the_service_says(
    table: Mapping[Category, int],
) -> None:
    assert status.of_normalized(HubError(Category.FAULT, "x", fatal=True), table)[0] == 0x0213
    unread = MappingError("x", where="(0010,0020)", code=101)
    assert status.of_normalized(unread, table)[0] == 0x0110
    assert status.of_normalized(unread, table, unreadable=0x0106)[0] == 0x0106
    assert status.of_normalized(ValueError("x"), table) == (0x0110, "The hub failed; see its log.")
