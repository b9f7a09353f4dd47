"""What the exports are compared with: batches of random rows, and what transformers makes of them."""
import numpy as np
import torch

PAD = 1
# The outputs of each head.
HEADS = {"none": ["last_hidden_state"], "mlm": ["logits"], "sentence": ["last_hidden_state", "sentence_embedding"]}


def batch(length, vocab, padded):
    """Ids and mask of three rows; padded, the second is half as long and the third has one token."""
    rng = np.random.default_rng(length)
    ids = rng.integers(4, vocab - 1, (3, length))
    ids[:, 0] = 0
    mask = np.ones_like(ids)
    if padded:
        for row, kept in enumerate((length, max(1, length // 2), 1)):
            ids[row, kept:] = PAD
            mask[row, kept:] = 0
    return ids, mask


@torch.no_grad()
def reference(model, ids, mask):
    """Hidden states, logits and the mean over the tokens of each row, of an MPNetForMaskedLM."""
    ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
    hidden = model.mpnet(input_ids=ids, attention_mask=mask).last_hidden_state
    share = mask[..., None].float()
    mean = (hidden * share).sum(1) / share.sum(1).clamp(min=1e-9)
    return {
        "last_hidden_state": hidden.numpy(),
        "logits": model.lm_head(hidden).numpy(),
        "sentence_embedding": mean.numpy(),
    }


def stored(model, outputs, lengths):
    """Batches of these lengths, padded and unpadded, with what transformers makes of them, by the names that
    the checks in Rust read: 0.input_ids, 0.attention_mask, 0.logits, 1.input_ids, …"""
    tensors = {}
    for index, (length, padded) in enumerate((n, p) for n in lengths for p in (False, True)):
        ids, mask = batch(length, model.config.vocab_size, padded)
        expected = reference(model, ids, mask)
        tensors |= {f"{index}.input_ids": ids, f"{index}.attention_mask": mask}
        tensors |= {f"{index}.{name}": expected[name] for name in outputs}
    return tensors
