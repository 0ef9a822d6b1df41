"""HL7 Clinical Document Architecture, Release 2, as FHIR R4 (http://hl7.org/cda; China: WS/T 500-2016)."""
