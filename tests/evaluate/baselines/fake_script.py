"""An engine whose seconds are known beforehand, served as the real ones are."""

import os
import sys
import time

STEP, SLOW = 2.0, 3.0  # seconds, with flash attention and without


class Baseline:
    def __init__(self):
        print("a library that prints")
        self.settings = {}

    def load(self, model, threads):
        if "broken" in model:
            raise ValueError("Exception from a.cpp:\nthis file cannot be read\n")
        self.dies = "dies" in model
        return {"version": "1.0", "threads": threads}

    def fill(self, name, ids, slots, settings):
        self.settings.setdefault(name, settings)
        return 10 * self.second(name) * len(ids)

    def steps(self, name, count):
        if self.dies:
            sys.stderr.write("first\nsegmentation fault\n")
            sys.stderr.flush()
            os._exit(7)
        return [100.0] + [self.second(name)] * (count - 1)

    def passes(self, name, tokens, count):
        return [100.0] + [self.second(name) * len(tokens)] * (count - 1)

    def drop(self, name):
        del self.settings[name]

    def open_contexts(self):
        return sorted(self.settings)

    def second(self, name):
        return STEP if self.settings[name]["flash"] else SLOW

    def nll(self, ids):
        return float(len(ids) - 1)

    def generate(self, ids, new_tokens, ends, sampler, settings=None):
        return {"ids": ids[:1] * new_tokens, "times": [float(at) for at in range(new_tokens)]}

    def sleep(self, wanted_s):
        time.sleep(wanted_s)
