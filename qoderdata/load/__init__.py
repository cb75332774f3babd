"""Load deployments, runs and sessions from the service, and keep them on disk.

This layer alone joins the client, the cursor walk, the decoder, the cache and the store of runs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
