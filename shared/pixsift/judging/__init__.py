"""What happens to an object from its arrival to its outcome: fetch, decode, embed, decide, commit.

The same stages whatever feeds them: the consumer with messages of a queue, ``operations.curate``
with the files of a folder. Where objects are is a port (``ports.ObjectStore``); who brought them,
and hears what became of them, is a ``Settler``.
"""
