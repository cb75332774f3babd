"""Turn bytes into Arrow: how does a page of JSON become rows of a table?

================  ====================================================================
file              question
================  ====================================================================
`jsontext`        How is one JSON value read and written exactly?
`unknown_fields`  Where does a field without a column go?
`exact`           Which value fits its column?
`fast`            How is a page that keeps to the contract read many records at a time?
`decoder`         Which way does a page go, and how do the tables of all pages become one?
================  ====================================================================
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
