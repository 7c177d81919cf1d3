"""Metadata and contents of the ProteinLM package (Python packages `tape`, `pretrain` and `converter`)."""

import ast
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

S3 = ["boto3>=1.34"]
HUGGING_FACE = ["transformers>=4.48,<5"]
PLOTS = ["matplotlib>=3.8"]
ZSTANDARD = ["zstandard>=0.22"]
LORA = ["peft>=0.15"]
HDF5 = ["h5py>=3.11"]
DEVELOPMENT = [
    "moto>=5.0",
    "mypy>=1.18",
    "pytest>=8.4",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "PyYAML>=6.0",
    "ruff>=0.14",
]


def read_version() -> str:
    """The version in tape/version.py, read without importing tape (whose dependencies may not be installed yet)."""
    for node in ast.parse((ROOT / "tape" / "version.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise RuntimeError("tape/version.py states no __version__")


def read_readme() -> str:
    """README.md as the long description."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="proteinlm",
    version=read_version(),
    description="Pretrain a protein language model with tensor parallelism, finetune and evaluate it on TAPE's tasks",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="protein language model BERT TAPE Megatron-LM tensor parallel pretraining",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    packages=find_packages(include=["tape", "tape.*", "pretrain", "pretrain.*", "converter", "converter.*"]),
    package_data={
        "tape": ["sample/**/*", "report/*.css", "report/*.json"],
        "pretrain": ["**/*.txt", "**/*.sh"],
        "converter": ["*.json", "megatron-converter.py"],
    },
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11",
        "numpy>=1.26",
        "scipy>=1.11",
        "pandas>=2.1",
        "lmdb>=1.4",
        "safetensors>=0.4.3",
        "tensorboardX>=2.6",
        "tqdm>=4.66",
    ],
    extras_require={
        "s3": S3,
        "hf": HUGGING_FACE,
        "plots": PLOTS,
        "zstd": ZSTANDARD,
        "lora": LORA,
        "hdf5": HDF5,
        "dev": [*S3, *HUGGING_FACE, *PLOTS, *ZSTANDARD, *LORA, *HDF5, *DEVELOPMENT],
    },
    entry_points={
        "console_scripts": [
            "tape-train=tape.main:train_command",
            "tape-eval=tape.main:eval_command",
            "tape-embed=tape.main:embed_command",
            "tape-score=tape.cli.zero_shot:score_command",
            "tape-contacts=tape.cli.zero_shot:contacts_command",
            "tape-train-distributed=tape.main:train_distributed_command",
        ],
    },
)
