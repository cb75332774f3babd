from .decoder import Decoder, Page, Records, from_records, join_tables
from .jsontext import NotJSONError

__all__ = ["Decoder", "NotJSONError", "Page", "Records", "from_records", "join_tables"]
