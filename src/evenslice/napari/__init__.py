"""The plug-in for napari: the same verbs, in worker threads, on the layers of a viewer."""
