"""pixsift: what a robotics data team needs between a camera and a training set."""

__version__ = "0.1.0"
