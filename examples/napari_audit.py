"""Audit a model on a volume and show the maps in napari.

    python examples/napari_audit.py MODEL VOLUME [--windows 12] [--tile 256] [--headless]

With --headless no window opens: prints the verdict and the layers that would be shown.
"""

import argparse

from napari.components import ViewerModel
from napari.layers import Layer

from evenslice import audit, load_model
from evenslice.napari.audit_panel import layers_of_audit, show_together
from evenslice.napari.layers import volume_of_layer
from evenslice.napari.reading import read
from evenslice.report.verdict import sentence


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("volume")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--headless", action="store_true")
    given = parser.parse_args()
    if given.headless:
        viewer = ViewerModel()
    else:
        import napari

        viewer = napari.Viewer()
    for opened in read(given.volume):
        viewer.add_layer(Layer.create(*opened))
    layer = viewer.layers[0]
    found = audit(
        load_model(given.model),
        volume_of_layer(layer),
        windows=given.windows,
        tile=given.tile,
        views=3,
    )
    for made in layers_of_audit(found, layer):
        viewer.add_layer(Layer.create(*made))
    show_together(viewer.layers, True)
    print(sentence(found))
    print("\n".join(f"{one.name}: {one.data.shape}" for one in viewer.layers))
    if not given.headless:
        napari.run()


if __name__ == "__main__":
    main()
