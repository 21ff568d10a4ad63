"""OpenVINO GenAI's ``LLMPipeline`` on a GGUF."""

import time
from importlib import import_module

import numpy as np

BLOCK = 32  # slots, its block of keys and values on a CPU
START, RECENT = 32, 128  # what its eviction never takes, its documentation's example


class Baseline:
    """A pipeline, by default with everything kept."""

    def load(self, model, threads, budget=None):
        """Read a GGUF; ``budget``: slots, above which its own eviction goes to work."""
        self.genai = import_module("openvino_genai")
        self.tensor = import_module("openvino").Tensor
        options = {"INFERENCE_NUM_THREADS": threads}
        if budget is not None:
            options["scheduler_config"] = self.evicting(budget)
        self.pipeline = self.genai.LLMPipeline(model, "CPU", **options)
        return {"version": self.genai.__version__}

    def evicting(self, budget):
        config = self.genai.SchedulerConfig()
        config.use_cache_eviction = True
        config.enable_prefix_caching = False
        config.cache_eviction_config = self.genai.CacheEvictionConfig(
            START, RECENT, budget // BLOCK * BLOCK, self.genai.AggregationMode.NORM_SUM
        )
        return config

    def generate(self, ids, new_tokens, ends, sampler, settings=None):
        """New ids, and seconds from the beginning to each of them."""
        times: list[float] = []
        begun = time.perf_counter()
        prompt = self.tensor(np.array([ids], np.int64))
        found = self.pipeline.generate(
            prompt, self.config(new_tokens, ends, sampler), self.listener(times, begun)
        )
        return {"ids": [int(token) for token in found.tokens[0]], "times": times}

    def listener(self, times, begun):
        """Note when each token comes."""
        running = self.genai.StreamingStatus.RUNNING

        class Listener(self.genai.StreamerBase):  # type: ignore[name-defined]
            def write(self, tokens):
                count = len(tokens) if isinstance(tokens, list) else 1
                times.extend([time.perf_counter() - begun] * count)
                return running

            def end(self):
                pass

        return Listener()

    def config(self, new_tokens, ends, sampler):
        config = self.genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = not ends
        config.stop_token_ids = set(ends)
        config.repetition_penalty = sampler.get("repetition_penalty", 1.0)
        config.do_sample = sampler["temperature"] > 0
        if config.do_sample:
            config.temperature, config.top_p = sampler["temperature"], sampler.get("top_p", 1.0)
            config.rng_seed = sampler["seed"]
            if sampler.get("top_k"):
                config.top_k = sampler["top_k"]
        return config
