"""Where the views of a scan really were, and what the instrument adds to them."""

from ddf_tomo.alignment.air import AirCalibration, calibrate_blur
from ddf_tomo.alignment.align import Alignment, absorption_of, align
from ddf_tomo.alignment.centre import find_centre
from ddf_tomo.alignment.registration import register

__all__ = ["AirCalibration", "Alignment", "absorption_of", "align", "calibrate_blur", "find_centre", "register"]
