"""The `keras-mhe` command up to the point where Keras is needed.

This is a package of its own because `import keras_mhe` imports Keras and a backend, which takes
seconds. Help and errors in options need neither.
"""

from keras_mhe_command._main import main

__all__ = ["main"]
