"""What operations answer, where it leaves the process: ``--json`` and the HTTP API.

One module per subject. Keys are stable: programs read them. ``pixsift.messages`` holds what is
asked.
"""
