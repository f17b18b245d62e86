"""`constclf serve`: the command. Built in chapter 08.

Deliberately not here: anything that answers a request (app.py, backend.py). Keys come from the environment, never from
the command line, which every user of the machine can read.
"""

from __future__ import annotations

import argparse
import math
import os
import sys

from ..errors import ClassifierError

KEY, UPSTREAM_KEY = "CONSTCLF_API_KEY", "CONSTCLF_UPSTREAM_KEY"


def add_arguments(serve: argparse.ArgumentParser) -> None:
    """What `constclf serve` takes (cli.py)."""
    serve.epilog = f"{KEY}: what clients must show as a key. {UPSTREAM_KEY}: the upstream server's."
    what = serve.add_argument_group("what is guarded; by default the lab's own assistant")
    what.add_argument("--guard", metavar="FOLDER", help="a folder that GuardedModel.save_pretrained wrote")
    what.add_argument("--assistant", metavar="NAME", help="another Hugging Face model in place of the folder's")
    what.add_argument(
        "--upstream", metavar="URL", help="a server with OpenAI's API instead, as http://127.0.0.1:8000/v1"
    )
    what.add_argument("--upstream-model", metavar="NAME", help="the model to ask it for")
    how = serve.add_argument_group("how")
    how.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    how.add_argument("--port", type=int, default=8000)
    how.add_argument("--model-name", default="guarded", help="the name that clients ask for")
    how.add_argument("--device", help="where the models compute, as cuda")
    how.add_argument("--refusal", help="what is said in place of what is held back")
    how.add_argument("--max-tokens", type=int, default=1024, help="the longest reply")
    how.add_argument("--temperature", type=float, default=0.0, help="where a request gives none (0: greedy)")
    how.add_argument("--max-streams", type=int, default=64, help="replies at a time")
    how.add_argument("--max-waiting", type=int, default=256, help="requests that may wait for a place")
    how.add_argument("--step-timeout", type=float, default=30.0, help="seconds for one call of a model")
    how.add_argument("--upstream-timeout", type=float, default=60.0, help="seconds that the upstream may keep silent")
    how.add_argument(
        "--trust-roles", action="store_true",
        help="judge the user's messages alone; only where a program of yours writes the others",
    )  # fmt: skip
    how.add_argument("--scores", action="store_true", help="show clients scores; for study, as attackers climb on them")
    how.add_argument("--ui", action="store_true", help="a chat page for people at /; shows scores")
    how.add_argument("--unguarded", action="store_true", help="no classifier is asked: for measuring what they cost")


def guard_of(options: argparse.Namespace):
    """The guard that the options describe. Raises ValueError, FileNotFoundError or ClassifierError, which
    say what to do.
    """
    from .._data import data_path
    from ..guard import GuardedModel, GuardedUpstream, Thresholds
    from ..streaming import StreamingScorer

    if options.upstream and not options.upstream_model:
        raise ValueError("--upstream needs --upstream-model, the name of the model to ask it for")
    folder = options.guard or data_path("models")
    settings: dict = {"step_timeout": options.step_timeout}
    if options.refusal is not None:
        settings["refusal_text"] = options.refusal
    if not options.trust_roles:
        settings["judged_roles"] = ("system", "user", "assistant")
    whole = GuardedModel.from_pretrained(folder, options.device, **settings)
    if options.unguarded:
        whole.input_classifier = whole.output_classifier = whole.monitor = None
        whole.through_text, whole.thresholds = False, Thresholds(math.inf, math.inf, math.inf)
    if options.upstream:
        scorer = whole.output_classifier and StreamingScorer(whole.output_classifier, step_timeout=options.step_timeout)
        return GuardedUpstream(
            options.upstream, options.upstream_model, whole.input_classifier, scorer, whole.thresholds,
            os.environ.get(UPSTREAM_KEY), options.upstream_timeout, **settings,
        )  # fmt: skip
    if options.assistant:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        assistant = AutoModelForCausalLM.from_pretrained(options.assistant)
        if options.device is not None:
            assistant = assistant.to(options.device)
        tokenizer = AutoTokenizer.from_pretrained(options.assistant)
        classifiers = (whole.input_classifier, whole.output_classifier)
        return GuardedModel(assistant, tokenizer, *classifiers, whole.thresholds, **settings)
    return whole


def run(options: argparse.Namespace) -> int:
    """Serves until it is stopped. Raises what `guard_of` raises, and ClassifierError without the extra."""
    try:
        import uvicorn

        from .app import create_app
        from .backend import Backend
    except ModuleNotFoundError as error:
        raise ClassifierError(
            f"{error.name} is missing; install the extra: pip install 'constclf-lib[serve]'"
        ) from error
    guard, key = guard_of(options), os.environ.get(KEY)
    if key is None and options.host not in ("127.0.0.1", "localhost", "::1"):
        print(f"anyone who reaches {options.host} may use this server; set {KEY} to ask for a key", file=sys.stderr)
    app = create_app(
        Backend(guard, options.max_streams, options.max_waiting),
        options.model_name,
        key,
        options.max_tokens,
        options.temperature,
        options.scores or options.ui,
        options.ui,
    )
    uvicorn.run(app, host=options.host, port=options.port, log_level="info", timeout_graceful_shutdown=5)
    return 0
