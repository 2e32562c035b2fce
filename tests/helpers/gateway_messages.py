"""What a gateway says, read as the driver does."""

from multipick_epp.extproc.chunks import read_chunk
from multipick_epp.extproc.messages import GatewayMessage, of_chunk, read_other


def read(data: bytes) -> GatewayMessage:
    """One ProcessingRequest. Raises MessageError."""
    chunk = read_chunk(data)
    return read_other(data) if chunk is None else of_chunk(*chunk)
