"""The consumer service.

Read before numpy is: between two small products, OpenBLAS's threads would otherwise spin for longer
than the pipeline's other stages need the core.
"""

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
