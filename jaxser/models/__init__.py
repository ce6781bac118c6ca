"""The networks, by the name that a config gives them."""

from jaxser.models.mcsan import MCSAN

MODELS = {"mcsan": MCSAN}
