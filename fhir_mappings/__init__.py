"""Pure translation between HL7 v2, DICOM and FHIR R4; no input or output."""
