"""Train a small byte-level BPE tokenizer on text: `python tools/small_tokenizer.py FOLDER TOKENS SOURCE...`

`configs/llama-small` holds the one of `configs/pretraining.yaml`: 4096 tokens, from the texts that it trains on.
"""

import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mora_peft.recipes.data import load_texts

END = "<|endoftext|>"


def main(folder: str, tokens: str, *sources: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(tokens),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(load_texts(list(sources))["text"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    tokenizer.save(f"{folder}/tokenizer.json", pretty=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
