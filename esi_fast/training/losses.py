"""The two losses of ESI, over all ranks: contrastive and captioning.

Both return this rank's share such that the mean over ranks, which is what data-parallel training
differentiates, is the loss of the whole batch: 2 ranks x 8 records give the gradients of 1 x 16.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from esi_fast.training.distributed import all_gather, all_sum, rank, world_size


def contrastive_loss(
    ecg_BD: Tensor, text_BD: Tensor, logit_scale: Tensor, concept_key_B: Tensor
) -> Tensor:
    """Symmetric InfoNCE with soft targets for records that say the same.

    Each record is compared with the texts of all ranks, and each text with all records. Records
    with equal ``concept_key`` are not each other's negatives: the target is spread evenly over
    them. With all keys different this is CLIP's loss (Radford et al., 2021, figure 3).

    Args:
        ecg_BD, text_BD: this rank's unit-length embeddings, ``(b, D)`` float32.
        logit_scale: ``(1,)``, the factor itself (not its logarithm).
        concept_key_B: ``(b,)`` int64.

    Returns:
        A scalar.
    """
    batch = len(ecg_BD)
    # One collective for both sides: this rank's rows of the gathered pair are its own.
    both = all_gather(torch.cat([ecg_BD, text_BD], dim=1))
    all_ecg_BD, all_text_BD = both.chunk(2, dim=1)
    keys_B = all_gather_keys(concept_key_B)
    own = slice(rank() * batch, (rank() + 1) * batch)
    same_bB = (keys_B[own, None] == keys_B[None, :]).to(ecg_BD.dtype)
    target_bB = same_bB / same_bB.sum(dim=1, keepdim=True)
    ecg_to_text = F.cross_entropy(logit_scale * all_ecg_BD[own] @ all_text_BD.T, target_bB)
    text_to_ecg = F.cross_entropy(logit_scale * all_text_BD[own] @ all_ecg_BD.T, target_bB)
    return (ecg_to_text + text_to_ecg) / 2


def sigmoid_contrastive_loss(
    ecg_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    concept_key_B: Tensor,
) -> Tensor:
    """Every pair of an ECG and a text by itself: do they say the same? (Zhai et al. 2023, SigLIP).

    Records with equal ``concept_key`` are each other's matches.

    Args:
        ecg_BD, text_BD: this rank's unit-length embeddings, ``(b, D)`` float32.
        logit_scale, logit_bias: ``(1,)``.
        concept_key_B: ``(b,)`` int64.

    Returns:
        A scalar: summed over all texts, averaged over this rank's ECGs.
    """
    batch = len(ecg_BD)
    all_text_BD = all_gather(text_BD)
    keys_B = all_gather_keys(concept_key_B)
    own = keys_B[rank() * batch : (rank() + 1) * batch]
    sign_bB = torch.where(own[:, None] == keys_B[None, :], 1.0, -1.0).to(ecg_BD.dtype)
    logits_bB = logit_scale * ecg_BD @ all_text_BD.T + logit_bias
    return -F.logsigmoid(sign_bB * logits_bB).sum() / batch


def all_gather_keys(key_B: Tensor) -> Tensor:
    """Integer keys of all ranks, in rank order."""
    with torch.no_grad():
        return all_gather(key_B)


def captioning_loss(summed: Tensor, num_tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over the real tokens of all ranks.

    Args:
        summed: this rank's sum over its real tokens (or those of a micro-batch).
        num_tokens: of all ranks and micro-batches: see `count_tokens`.

    Returns:
        A scalar: ranks with longer captions weigh more.
    """
    return summed * world_size() / num_tokens


def count_tokens(attention_mask_BN: Tensor) -> Tensor:
    """Tokens to be predicted on all ranks (all real ones but the first of each caption), 1 or more.

    Args:
        attention_mask_BN: of the captions of this rank: 1 where a token is real.
    """
    return all_sum(attention_mask_BN[:, 1:].sum()).clamp(min=1)
