"""A tokenizer for the golden models, which have none: special tokens where the case has them, words elsewhere."""
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

ROLES = [("bos", "s"), ("pad", "pad"), ("eos", "/s"), ("unk", "unk"), ("mask", "mask")]


def golden_tokenizer(model):
    """Of the size of `model`, the case's configuration."""
    roles = {model[f"{role}_token_id"]: f"<{name}>" for role, name in ROLES}
    vocab = {roles.get(i, f"w{i}"): i for i in range(model["vocab_size"])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
