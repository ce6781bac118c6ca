"""The networks, by their names in a config."""

from jaxser.models.can import CAN
from jaxser.models.cat_ilt import CAT, ILT
from jaxser.models.lstm_attention import LSTMAttention
from jaxser.models.mcsan import MCSAN
from jaxser.models.network import Network
from jaxser.models.probe import Probe
from jaxser.models.self_cross import SelfCross
from jaxser.models.unimodal import AudioModel, TextModel
from jaxser.models.xu import Xu
from jaxser.models.yoon import AMH, MDRE, MHA

MODELS: dict[str, type[Network]] = {
    "amh": AMH,
    "audio_model": AudioModel,
    "can": CAN,
    "cat": CAT,
    "ilt": ILT,
    "lstm_attention": LSTMAttention,
    "mcsan": MCSAN,
    "mdre": MDRE,
    "mha": MHA,
    "probe": Probe,
    "self_cross": SelfCross,
    "text_model": TextModel,
    "xu": Xu,
}
