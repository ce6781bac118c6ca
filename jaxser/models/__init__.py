"""The networks, by the name that a config gives them."""

from jaxser.models.can import CAN
from jaxser.models.lstm_attention import LSTMAttention
from jaxser.models.mcsan import MCSAN
from jaxser.models.network import Network
from jaxser.models.self_cross import SelfCross
from jaxser.models.unimodal import AudioModel, TextModel

MODELS: dict[str, type[Network]] = {
    "audio_model": AudioModel,
    "can": CAN,
    "lstm_attention": LSTMAttention,
    "mcsan": MCSAN,
    "self_cross": SelfCross,
    "text_model": TextModel,
}
