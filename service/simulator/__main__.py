"""`python -m service.simulator [PORT [SEED]]`: a simulator until it is interrupted."""

import sys

from service.simulator.server import run

if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    run(port=numbers[0] if numbers else 0, seed=numbers[1] if len(numbers) > 1 else 1)
