"""The consumer service. This runs before numpy is imported: otherwise OpenBLAS's threads would spin
between two small products while other stages of the pipeline need the core.
"""

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
