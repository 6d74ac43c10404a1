"""A process in place of a follower that hears of no end."""

import time

if __name__ == "__main__":
    time.sleep(600)
