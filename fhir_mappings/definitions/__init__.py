"""What FHIR R4 says about its own resources, and the checks and index rows that follow from it."""
