"""An equivariant model as one of plain convolutions: quicker to load and to run, readable without group machinery."""

from pathlib import Path

from galgaze.errors import ConfigError
from galgaze.models.model_file import load_extras, load_network, read_card, save_model


def export_plain(model: Path, out: Path) -> str:
    """Write the same function with plain convolutions; gives a line that says what was done.

    The card stays, but for its architecture; so does what else the model's file holds (`load_extras`).

    Parameters
    ----------
    model : Path
        Model file of an `equivariant_agcnn`.
    out : Path
        Model file to write.

    Raises
    ------
    ConfigError
        If the model cannot be read, is of another architecture, or would be overwritten.
    """
    card = read_card(model)
    name = card.architecture.get("name")
    if name != "equivariant_agcnn":
        raise ConfigError(
            f"{model}: the model's architecture is {name}; only equivariant_agcnn has something to export. "
            "Other networks consist of plain convolutions already."
        )
    if out.resolve() == model.resolve():
        raise ConfigError(
            f"{out}: this is the model itself, which can be trained on and its export cannot. Name another."
        )
    from galgaze.models.combined import TurnedViews
    from galgaze.models.equivariant import export, export_architecture

    network, card = load_network(model)
    if isinstance(network, TurnedViews):  # the card says so, and will go on saying so
        network = network.network
    plain = card.model_copy(update={"architecture": export_architecture(network.settings)})
    save_model(out, export(network), plain, load_extras(model))
    return f"{out}: {network.settings['group']} of {model} in plain convolutions"
