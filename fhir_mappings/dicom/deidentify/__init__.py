"""De-identified copies of SOP Instances: the Basic Application Level Confidentiality Profile and its options (PS3.15 annex E).

``table`` holds what the standard says of each attribute, ``keys`` makes the replacements that only a project's key can
make, ``text`` takes known identifiers out of free text, ``holding`` says which objects need a person's word first, and
``engine`` puts them together without ever holding pixel data.
"""
