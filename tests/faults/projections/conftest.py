import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "integration" / "projections"))  # how a log is filled
