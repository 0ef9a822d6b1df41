"""Pixels of stored objects: frames found, decoded, encoded again and rendered (PS3.5 section 8, PS3.18 section 8.7).

Shared by the doors that hand images out, and importing none of them. Only headers and byte ranges are looked at in the
process of a door; every codec runs in a child process with bounds (:mod:`adapters.pixels.pool`), because codecs are
where hostile images strike.
"""
