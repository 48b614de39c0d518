"""`python -m keras_mhe` does the same as the command `keras-mhe`."""

from keras_mhe_command import main

if __name__ == "__main__":
    main()
