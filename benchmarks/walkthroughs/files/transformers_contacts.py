"""Contacts of structure files, learned and predicted by transformers with a head of its own."""

from pathlib import Path

import gemmi
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, EarlyStoppingCallback, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("proteinlm-mini-hf")


def read_chains(split):
    """Sequence and contacts of each chain: C-alpha atoms below 8 Angstrom; -1 below a separation of 6 or unresolved."""
    chains = []
    for path in sorted(Path("structures", split).iterdir()):
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        structure.assign_label_seq_id()
        polymer = structure[0][0].get_polymer()
        names = structure.get_entity_of(polymer).full_sequence
        sequence = "".join(gemmi.find_tabulated_residue(name).one_letter_code.upper() for name in names)
        points = np.full((len(sequence), 3), np.nan)
        for residue in polymer:
            points[residue.label_seq - 1] = residue.get_ca().pos.tolist()
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        contacts = np.where(np.isnan(distances), -1, distances < 8)
        places = np.arange(len(sequence))
        contacts[abs(places[:, None] - places) < 6] = -1
        chains.append({"sequence": sequence, "labels": contacts})
    return chains


def collate(chains):
    batch = dict(tokenizer([chain["sequence"] for chain in chains], padding=True, return_tensors="pt"))
    length = batch["input_ids"].shape[1] - 2
    batch["labels"] = torch.full((len(chains), length, length), -1.0)
    for labels, chain in zip(batch["labels"], chains, strict=True):
        size = len(chain["sequence"])
        labels[:size, :size] = torch.from_numpy(chain["labels"])
    return batch


class ContactModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = AutoModel.from_pretrained("proteinlm-mini-hf", add_pooling_layer=False)
        self.head = nn.Linear(2 * self.encoder.config.hidden_size, 1)

    def forward(self, input_ids, attention_mask, labels=None, token_type_ids=None):
        states = self.encoder(input_ids, attention_mask).last_hidden_state[:, 1:-1]
        left, right = states[:, :, None], states[:, None]
        logits = self.head(torch.cat([left * right, (left - right).abs()], dim=-1)).squeeze(-1)
        if labels is None:
            return {"logits": logits}
        known = labels >= 0
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known]), "logits": logits}


def contact_map(model, sequence):
    batch = tokenizer([sequence], return_tensors="pt")
    with torch.no_grad():
        return model.eval()(batch["input_ids"], batch["attention_mask"])["logits"][0].sigmoid().numpy()


def precision_at_l5(model, chains):
    precisions = []
    for chain in chains:
        first, second = np.triu_indices(len(chain["sequence"]), 6)
        labels = chain["labels"][first, second]
        chances = np.where(labels >= 0, contact_map(model, chain["sequence"])[first, second], -1)
        best = np.argsort(-chances)[: max(1, len(chain["sequence"]) // 5)]
        precisions.append((labels[best] == 1).mean())
    return float(np.mean(precisions))


trainer = Trainer(
    model=ContactModel(),
    args=TrainingArguments(
        output_dir="transformers_contacts",
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        num_train_epochs=60,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        remove_unused_columns=False,
        prediction_loss_only=True,
        report_to="none",
        use_cpu=True,
        seed=42,
    ),
    train_dataset=read_chains("train"),
    eval_dataset=read_chains("valid"),
    data_collator=collate,
    callbacks=[EarlyStoppingCallback(15)],
)
trainer.train()
trainer.save_metrics("test", {"test_precision_at_l5": precision_at_l5(trainer.model, read_chains("test"))})

with open("new_chains.fasta") as stream:
    lines = stream.read().split()
for name, sequence in zip(lines[::2], lines[1::2], strict=True):
    plt.imshow(contact_map(trainer.model, sequence), cmap="Blues")
    plt.savefig(f"transformers_{name[1:]}.png")
    plt.close()
