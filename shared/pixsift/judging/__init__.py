"""The way of an object from its arrival to its outcome: fetch, decode, embed, decide, commit. The
stages are the same for the consumer (messages of a queue) and for ``operations.curate`` (files of a
folder). The store of the objects is a port (``ports.ObjectStore``); a ``Settler`` gets the end of
each delivery.
"""
