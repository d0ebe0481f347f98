"""HTML pages for people: values in, the text of one page out. A page is one file. It has no script,
loads nothing from a network, and escapes every text, since keys and attributes come from outside.
All pages share ``style.css`` and the frame in ``document``. The package reads no ledger and writes
no file: its callers do.
"""
