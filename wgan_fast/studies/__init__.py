"""The field's classic exercises behind ``wgan-fast study``; needs the extra ``train``."""

from wgan_fast.studies.catalogue import STUDIES, find, listing
from wgan_fast.studies.runner import Outcome, run
from wgan_fast.studies.settings import StudySettings
from wgan_fast.studies.study import Finding, Study, verdict

__all__ = [
    "STUDIES",
    "Finding",
    "Outcome",
    "Study",
    "StudySettings",
    "find",
    "listing",
    "run",
    "verdict",
]
