"""The course around the library: what the notebooks call. No practitioner needs it.

session (every chapter's first call), plots/ (pictures), panels (widgets), rehearsal and red_team_game (what the panels
do, without the panels), checks/ (the exercises).
"""

from .panels import guard_panel, operating_panel, red_team_panel
from .red_team_game import RedTeam
from .rehearsal import operating_point, picture_of, rehearse, show_operating_point, show_reply
from .session import BRANCH, FIRST_CELL, REPOSITORY, badge, environment, report, seed_everything, setup

__all__ = [
    "BRANCH",
    "FIRST_CELL",
    "REPOSITORY",
    "RedTeam",
    "badge",
    "environment",
    "guard_panel",
    "operating_panel",
    "operating_point",
    "picture_of",
    "red_team_panel",
    "rehearse",
    "report",
    "seed_everything",
    "setup",
    "show_operating_point",
    "show_reply",
]
