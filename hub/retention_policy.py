"""The policy by which a member's images are kept: years after the patient's last study there, and by modality.

``30``, or ``years=30 US=15 MG=40``; a study of several modalities keeps the longest. Without a policy it is 30 years. The
law asks for at least 30 years after the last discharge of an inpatient and 15 after the last visit of an outpatient
(医疗机构病历管理规定 2013, article 29; 医疗机构管理条例实施细则, article 53). An image does not say which its patient was,
so 30 is what stands where nobody has decided, and no policy may say less than 15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Name of the setting of a member's Organization.
SETTING = "retention"
#: Name of the setting that says after how many years a member's v2 messages may go; without it they stay. What was made of
#: them stays in any case: the records of the patient are FHIR resources and images, and those are what the law is about.
MESSAGES = "message-retention"
DEFAULT_YEARS, LEAST_YEARS, MOST_YEARS = 30, 15, 200
_PART = re.compile(r"(?:(?P<name>years|[A-Z][A-Z0-9]{1,15})=)?(?P<years>[0-9]{1,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many years after the patient's last study images are kept, in general and by modality (0008,0060)."""

    years: int = DEFAULT_YEARS
    modalities: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Policy:
        """Return the policy that *text* says; raises ValueError with the part that is no use."""
        years, modalities = DEFAULT_YEARS, {}
        for part in text.split():
            found = _PART.fullmatch(part)
            if found is None or not LEAST_YEARS <= int(found["years"]) <= MOST_YEARS:
                raise ValueError(part)
            if found["name"] in {None, "years"}:
                years = int(found["years"])
            else:
                modalities[found["name"]] = int(found["years"])
        return cls(years=years, modalities=modalities)

    def of_study(self, modalities: Sequence[str]) -> int:
        """Return the years for a study with series of *modalities*."""
        return max((self.modalities.get(one, self.years) for one in modalities), default=self.years)

    @property
    def least(self) -> int:
        """The fewest years that anything is kept."""
        return min((self.years, *self.modalities.values()))


def is_policy(text: str) -> bool:
    """Return whether *text* is a policy."""
    try:
        Policy.of(text)
    except ValueError:
        return False
    return True


def are_years(text: str) -> bool:
    """Return whether *text* is a number of years that messages may be kept for."""
    return text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_YEARS
