"""The tables of revision 0001, one module for each kind, as they were when that revision was written.

A database that has this revision has exactly these tables, so what stands here never changes: a later change of
``storage/sql/schema/`` is a new file in ``versions/``. Only that folder holds revisions, which is why the modules that
make one up stand beside it.
"""
