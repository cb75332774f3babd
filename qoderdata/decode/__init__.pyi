from .decoder import Decoder, Page, Records, from_records
from .jsontext import NotJSONError

__all__ = ["Decoder", "NotJSONError", "Page", "Records", "from_records"]
