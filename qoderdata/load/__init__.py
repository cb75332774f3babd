"""Load what the service lists, and keep it on disk.

This layer alone joins the client, the cursor walk, the decoder, the cache, the stores and the snapshots.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
