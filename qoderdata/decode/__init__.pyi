from .decoder import Decoder, Page, Records, from_records
from .exact import with_all_columns
from .jsontext import NotJSONError

__all__ = ["Decoder", "NotJSONError", "Page", "Records", "from_records", "with_all_columns"]
