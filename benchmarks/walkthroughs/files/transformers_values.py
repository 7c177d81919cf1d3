"""A value of each sequence of a table, learned and predicted by transformers."""

import pandas as pd
from datasets import Dataset
from scipy.stats import spearmanr
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)

table = pd.read_csv("my.csv")
tokenizer = AutoTokenizer.from_pretrained("proteinlm-mini-hf")
model = AutoModelForSequenceClassification.from_pretrained("proteinlm-mini-hf", num_labels=1, problem_type="regression")


def dataset(rows):
    return Dataset.from_dict(dict(tokenizer(list(rows.sequence)), labels=list(rows.stability_kJ_mol)))


def compute_metrics(evaluation):
    return {"spearmanr": spearmanr(evaluation.predictions[:, 0], evaluation.label_ids).statistic}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="transformers_values",
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        num_train_epochs=60,
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        report_to="none",
        use_cpu=True,
        seed=42,
    ),
    train_dataset=dataset(table[table.split == "train"]),
    eval_dataset=dataset(table[table.split == "valid"]),
    processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=compute_metrics,
    callbacks=[EarlyStoppingCallback(15)],
)
trainer.train()
trainer.save_metrics("test", trainer.evaluate(dataset(table[table.split == "test"]), metric_key_prefix="test"))

with open("new.fasta") as stream:
    lines = stream.read().split()
new = pd.DataFrame({"id": [name[1:] for name in lines[::2]], "sequence": lines[1::2], "stability_kJ_mol": 0.0})
new["stability_kJ_mol"] = trainer.predict(dataset(new)).predictions[:, 0]
new.to_csv("transformers_predictions.csv", index=False)
