"""The networks, by the name that a config gives them."""

from jaxser.models.lstm_attention import LSTMAttention
from jaxser.models.mcsan import MCSAN
from jaxser.models.network import Network

MODELS: dict[str, type[Network]] = {"lstm_attention": LSTMAttention, "mcsan": MCSAN}
